"""A verdict on a tiny run: what it leaves, goes on to the same, and what it refuses."""

import dataclasses
import io
import json
import math
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cells import cells
from recipes import tiny
from rich.console import Console
from typer.testing import CliRunner

from metatune import artefact
from metatune.artefact.curves import values_at
from metatune.artefact.files import SIMPLE
from metatune.cli.commands import app
from metatune.fit.outer_loop import fit
from metatune.fit.run_folder import RunFolder, RunFolderError
from metatune.inner import prepare, prepare_file
from metatune.ladder.measuring import held_out_loss
from metatune.ladder.progress import Display
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.report.verdict import table
from metatune.verdict import contest
from metatune.verdict.contestants.contestant import PROXY
from metatune.verdict.points import Coordinates, Plain
from metatune.verdict.trainings import setting_of, trainings
from metatune.verdict.trials import FILE

METATUNE = (sys.executable, "-c", "from metatune.cli import main; main()")
QUIET = Console(quiet=True)
ONLY = ("grid", "tpe-all", "regression")


def metatune(*arguments):
    return CliRunner().invoke(app, [str(word) for word in arguments])


def training_of(folder):
    return prepare_file(folder.recipe)


def prepared(run, **options):
    options = {"only": ONLY, "most": 5, "resolution": 0.5, **options}
    return contest.prepare(run, training_of, **options)


def held(run, **options):
    return contest.hold(prepared(run, **options), Display(QUIET, 1.0))[0]


def in_order(lines):
    """The lines of a record as often as they are there, without the time that they took."""
    return sorted(json.dumps(line | {"seconds": 0}, sort_keys=True) for line in lines)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("verdict") / "run"
    recipe = tiny(inner={"steps": 6}, outer={"steps": 2})
    fit(prepare(recipe), out, console=QUIET)
    return out


@pytest.fixture(scope="module")
def document(run):
    return held(run)


def test_a_verdict_leaves_all_that_is_promised(run, document):
    folder = run / "artefact"
    assert json.loads((folder / "verdict.json").read_text()) == document
    assert artefact.load(run).verdict == document
    assert document["sentence"] in (folder / "README.md").read_text()
    shown = metatune("show", run)
    assert document["word"] in " ".join(shown.output.replace("│", " ").split())
    events = b"".join(path.read_bytes() for path in (run / "tensorboard").iterdir())
    assert document["sentence"].encode() in events
    assert metatune("report", run).exit_code == 0
    assert '"contest-behind"' in (run / "report.html").read_text(encoding="utf-8")

    assert [each["name"] for each in document["rivals"]] == list(ONLY)
    # Two outer steps and three validations of six inner steps, of one seed.
    assert document["budget"] == 2 * 6 + 3 * 6 == document["tuned"]["inner_steps"]
    assert document["tuned"]["gradients"] == pytest.approx(2 * 6 * 3.6 + 3 * 6)
    for each in document["rivals"]:
        assert each["inner_steps"] == each["gradients"] == document["budget"]
        assert each["trainings"] == 5
        assert len(each["losses"]) == document["seeds"] == 5
        ahead = np.subtract(each["losses"], document["tuned"]["losses"])
        assert each["behind_tuned"]["mean"] == pytest.approx(ahead.mean())
    lines = [json.loads(line) for line in (run / FILE).read_text().splitlines()]
    for each in document["rivals"]:
        searched = [
            line for line in lines if line["part"] == "search" and line["name"] == each["name"]
        ]
        best = math.inf
        expected = []
        for number, line in enumerate(searched, 1):
            if line["loss"] < best:
                best = line["loss"]
                expected.append([6 * number, best])
        assert each["course"] == expected
    held_out = [line["held_out"] for line in RunFolder(run).read_metrics()]
    # A hypergradient and a validation at points 0 and 1, a validation at the last.
    falling = list(zip((12, 24, 30), held_out, strict=True))
    assert document["tuned"]["course"] == [
        [step, loss] for i, (step, loss) in enumerate(falling) if loss < min([9.9, *held_out[:i]])
    ]
    assert '"contest-course"' in (run / "report.html").read_text(encoding="utf-8")
    for width in (80, 220):
        console = Console(width=width, file=(file := io.StringIO()))
        console.print(table(document, {"grid": 3.0}))
        assert max(map(len, file.getvalue().splitlines())) <= width
        assert "tpe-all" in file.getvalue()


def test_contestants_choose_on_other_text_and_seeds_than_they_are_measured_on(run, document):
    lines = [json.loads(line) for line in (run / FILE).read_text().splitlines()]
    seeds = {}
    for line in lines:
        seeds.setdefault((line["part"], line["name"]), set()).add(line["seed"])
    searches = [found for (part, _), found in seeds.items() if part == "search"]
    assert len(set().union(*searches)) == sum(map(len, searches)) == len(ONLY)
    tests = [found for (part, _), found in seeds.items() if part == "test"]
    assert len(tests) >= 2 + len(ONLY)
    assert all(found == tests[0] for found in tests)
    used = artefact.load(run).result["held_out_seeds"]
    assert not tests[0] & set(used)


def test_a_proxy_is_in_the_record_and_in_what_a_search_took(run, tmp_path):
    """Of five trainings there is room for two proxies, each with a training that uses it."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    found = held(copy, only=("alignment",))
    (rival,) = found["rivals"]
    assert (rival["trainings"], rival["inner_steps"]) == (4, round(6 * 2 * (PROXY + 1)))
    assert rival["chosen"]["mixture"] == "aligned"
    lines = [json.loads(line) for line in (copy / FILE).read_text().splitlines()]
    proxies = [line for line in lines if "shares" in line]
    assert [line["point"] for line in proxies] == ["proxy, reach 4", "proxy, reach 2"]
    assert rival["chosen"]["shares"] in [line["shares"] for line in proxies]
    whole = (copy / FILE).read_bytes()
    (copy / FILE).write_bytes(whole[: whole.index(b"proxy, reach 2")])
    assert held(copy, only=("alignment",)) == found
    again = [json.loads(line) for line in (copy / FILE).read_text().splitlines()]
    # Seeds of a measurement are trained side by side, so that their lines come as they end.
    assert in_order(again) == in_order(lines)


def test_a_table_tells_of_trainings_that_diverged(document):
    """How many, and of which differences the median is told."""
    tuned = {**document["tuned"], "losses": [None, *document["tuned"]["losses"][1:]]}
    gain = {**document["gain"], "mean": 0.25, "low": None, "signs": True, "settled": False}
    default = {**document["default"], "losses": [None] * 5}
    console = Console(width=250, file=(file := io.StringIO()))
    console.print(table({**document, "tuned": tuned, "default": default, "gain": gain}, {}))
    assert ", 1 of 5 diverged" in file.getvalue()
    assert "5 of 5 diverged" in file.getvalue()
    assert "+0.2500 (median)" in file.getvalue()
    assert "any to +" in file.getvalue()


@pytest.mark.parametrize("cut", cells([0.1, 0.5, 0.95], [0.1, 0.95]))
def test_a_killed_verdict_goes_on_to_the_same_file(run, document, tmp_path, cut):
    """Also where a line was cut off; nothing is trained twice."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    whole = (copy / FILE).read_bytes()
    (copy / FILE).write_bytes(whole[: int(cut * len(whole))])
    (copy / "artefact" / "verdict.json").unlink()
    tuned = json.loads((copy / "artefact" / "tuned.json").read_text())
    assert "verdict.json" in tuned["integrity"]["files"]
    before = dataclasses.replace(artefact.load(run), verdict=None)
    artefact.write(copy / "artefact", before, "")
    assert held(copy) == document
    again = (copy / FILE).read_bytes().splitlines()
    assert len(again) == len(whole.splitlines())
    ours, theirs = ((p / "artefact" / "verdict.json").read_bytes() for p in (copy, run))
    assert ours == theirs


def test_one_after_the_other_they_come_to_the_same_file(run, document, tmp_path, monkeypatch):
    """Nothing is known: all is trained again, by one stream in the place of several."""
    asked = []
    monkeypatch.setattr(contest, "streams_of", lambda training: asked.append(training) or 1)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    whole = (copy / FILE).read_text().splitlines()
    (copy / FILE).unlink(missing_ok=True)
    assert held(copy) == document
    assert asked
    ours, theirs = ((p / "artefact" / "verdict.json").read_bytes() for p in (copy, run))
    assert ours == theirs
    again = (copy / FILE).read_text().splitlines()
    assert in_order(map(json.loads, again)) == in_order(map(json.loads, whole))


def test_a_larger_contest_keeps_what_is_known(run, document, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = (copy / FILE).read_text()
    held(copy, most=8, resolution=0.0, only=("grid",))
    after = (copy / FILE).read_text()
    assert after.startswith(before)
    assert {json.loads(line)["part"] for line in after[len(before) :].splitlines()} <= {"test"}


def test_tuned_against_itself_is_no_gain(run, tmp_path):
    """Tuned is the default by construction: every pair is the same training twice."""
    out = tmp_path / "run"
    still = schema.SignSpec(learning_rate=1e-30, tolerance=None)
    fit(prepare(tiny(outer={"steps": 1, "optimizer": still})), out, console=QUIET)
    found = held(out, only=(), resolution=None)
    assert found["gain"]["mean"] == pytest.approx(0, abs=1e-6)
    assert found["word"] == "keep your defaults"
    assert found["parts"] is None


def test_another_run_takes_part(run, tmp_path):
    found = held(run, only=(), also=(run,))
    (other,) = found["rivals"]
    assert other["name"] == f"also {run}"
    assert other["losses"] == found["tuned"]["losses"]
    assert other["behind_tuned"]["mean"] == 0


def test_what_cannot_be_judged_is_refused_before_it_is_trained(run, tmp_path):
    with pytest.raises(RunFolderError, match="is no run folder"):
        prepared(tmp_path)
    before = sorted(path.name for path in (run / "artefact").iterdir())
    with pytest.raises(RunFolderError, match="is no run folder"):
        prepared(run / "artefact")
    assert sorted(path.name for path in (run / "artefact").iterdir()) == before
    with pytest.raises(RecipeError, match=r"did you mean grid\?"):
        prepared(run, only=["gird"])
    done = metatune("verdict", run, "--only", "gird")
    assert done.exit_code == 2
    assert "did you mean grid?" in done.output
    assert metatune("verdict", run, "--max-seeds", 3).exit_code == 2


def test_who_takes_no_part_is_listed(tmp_path):
    out = tmp_path / "run"
    rates = schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="layer"))
    fit(prepare(tiny(tune=rates, outer={"steps": 1})), out, console=QUIET)
    found = prepared(out, only=None)
    assert found.refused["regression"] == "no mixture is tuned"
    assert "halving" in found.refused  # of six inner steps
    assert "regression" not in [each.name for each in found.contestants]
    document = held(out, only=["regression"], resolution=5.0)
    assert document["refused"] == [{"name": "regression", "why": "no mixture is tuned"}]


def test_a_point_is_trained_as_the_recipe_that_says_the_same(run):
    """A grid's point, against the recipe with its schedule, rate and shares written into it."""
    recipe = RunFolder(run).recipe
    training = prepare_file(recipe)
    made = trainings(training, prepared(run).trainings.default)
    point = Plain(rate=2.0, schedule="constant", mixture="target", shares=(0.75, 0.25))
    other = prepare_file(
        recipe,
        [
            "inner.optimizer.learning_rate=2e-2",
            "inner.optimizer.schedule={kind: constant, warmup: 0.05}",
            "tune.mixture.initial={code: 3, drama: 1}",
        ],
    )
    plain = trainings(other, prepared(run).trainings.default)
    default = contest.artefact_of(other, other.initial_eta(), artefact.load(run).result)
    wanted = held_out_loss(plain.of_artefact(default), 3)
    assert held_out_loss(made.followed(point), 3) == pytest.approx(wanted, rel=1e-6)


def test_the_origin_of_all_coordinates_is_the_recipe_s_own(run):
    made = prepared(run).trainings
    count = prepared(run).setting.coordinates
    own = held_out_loss(made.of_artefact(made.default), 0)
    assert held_out_loss(made.followed(Coordinates((0.0,) * count)), 0) == own
    assert held_out_loss(made.followed(Coordinates((0.5,) * count)), 0) != own


def test_layers_below_learn_slower(run):
    training = prepare(tiny({"num_hidden_layers": 2}))
    default = contest.artefact_of(training, training.initial_eta(), artefact.load(run).result)
    made = trainings(training, default).followed(Plain(layer_decay=0.5)).schedules.tuned
    assert made is not None
    own = default.learning_rates.rate("model.layers.0.mlp.up_proj.weight", 3, 6)
    rates = made.learning_rates.parameters
    at = {name: values_at(made.learning_rates.knots, row, "constant", [3], 6)[0] / own
          for name, row in rates.items()}  # fmt: skip
    assert at["lm_head.weight"] == pytest.approx(1.0)
    assert at["model.norm.weight"] == pytest.approx(1.0)
    assert at["model.layers.1.mlp.up_proj.weight"] == pytest.approx(0.5)
    assert at["model.layers.0.mlp.up_proj.weight"] == pytest.approx(0.25)
    assert at["model.embed_tokens.weight"] == pytest.approx(0.125)
    assert setting_of(training, default).layers == 2


def test_a_descent_that_does_not_move_the_rates_is_the_recipe_s_own(run):
    made = prepared(run).trainings
    own = held_out_loss(made.of_artefact(made.default), 1)
    still = held_out_loss(made.followed(Plain(optimizer="online", online_rate=0.0)), 1)
    assert still == pytest.approx(own, rel=1e-6)
    moving = held_out_loss(made.followed(Plain(optimizer="online", online_rate=0.3)), 1)
    assert moving < own  # the tiny recipe is far too slow, and its gradients agree


def test_an_interrupted_verdict_says_how_to_go_on(run, document, tmp_path, monkeypatch):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    words = ["verdict", str(copy), "--only", "grid", "--max-seeds", "5", "--resolution", "0.5"]

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(contest, "hold", interrupted)
        done = metatune(*words)
    assert done.exit_code == 130
    assert f"go on with\n  metatune verdict {copy} --max-seeds 5 --only grid" in done.stderr
    done = metatune(*words, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rivals"][0]["name"] == "grid"


# By a signal; it is a ladder's, too, in tests/ladder/test_command.py.
@pytest.mark.thorough
def test_what_is_stopped_says_how_to_go_on_and_does(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / FILE).unlink(missing_ok=True)
    words = ["verdict", str(copy), "--only", "grid", "--max-seeds", "5", "--resolution", "0.5"]
    process = subprocess.Popen(
        [*METATUNE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (copy / FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 143
    assert f"go on with\n  metatune verdict {copy} --max-seeds 5 --only grid" in told
    before = (copy / FILE).read_text()
    done = metatune(*words, "--json")
    assert done.exit_code == 0, done.output
    assert (copy / FILE).read_text().startswith(before)
    document = json.loads(done.stdout)
    assert document["rivals"][0]["name"] == "grid"


def test_a_plan_trains_nothing(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / FILE).unlink(missing_ok=True)
    done = metatune("verdict", copy, "--plan", "--only", "grid,tpe")
    assert done.exit_code == 0, done.output
    assert "the search took 30 inner steps (5 trainings; 61 gradients)" in done.output
    assert "contestants, of 30 inner steps each: grid, tpe" in done.output
    assert "expected: about" in done.output
    assert not (copy / FILE).exists()


def test_a_run_that_was_judged_can_be_overwritten(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / SIMPLE).mkdir(exist_ok=True)
    fit(prepare(tiny(outer={"steps": 1})), copy, overwrite=True, console=QUIET)
    assert not (copy / FILE).exists()
    assert artefact.load(copy).verdict is None


def test_a_search_that_goes_on_leaves_no_verdict_on_other_schedules(run, document, tmp_path):
    """Nor the simple schedules that it found; asked for nothing more, it leaves both."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.copytree(copy / "artefact", copy / SIMPLE, dirs_exist_ok=True)
    before = artefact.load(copy).verdict
    assert before is not None
    recipe = tiny(inner={"steps": 6}, outer={"steps": 2})
    fit(prepare(recipe), copy, resume=True, console=QUIET)
    assert (copy / SIMPLE).exists()
    assert artefact.load(copy).verdict == before
    longer = tiny(inner={"steps": 6}, outer={"steps": 3})
    fit(prepare(longer), copy, resume=True, console=QUIET)
    assert not (copy / SIMPLE).exists()
    assert artefact.load(copy).verdict is None
    assert not (copy / "artefact" / "verdict.json").exists()
