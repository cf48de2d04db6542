"""A whole run: what it leaves behind, and that it goes on as if nothing had happened."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells
from PIL import Image
from recipes import prepared, tiny
from rich.console import Console
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

from metatune import artefact
from metatune.artefact.document import curves as curves_of
from metatune.fit import outer_loop
from metatune.fit.outer_loop import fit
from metatune.fit.run_folder import RunFolder, RunFolderError, open_run
from metatune.fit.searching import hypergradients as hypergradients_of
from metatune.fit.searching.points import taken
from metatune.fit.searching.search import Search
from metatune.fit.searching.validation import keep_best
from metatune.fit.trainers.failure import NotFinite
from metatune.hypergrad import CheckpointError, EstimatorError, hypergradient
from metatune.hypergrad.forward.persistent import Lived
from metatune.inner.preparing import prepare
from metatune.recipe import schema, writing
from metatune.report import terminal
from metatune.report.html import sources
from metatune.report.html.story import story
from metatune.report.pictures.thumbnails import heat_map
from metatune.report.search import divergences
from metatune.runs.inputs import INPUTS

RECIPE = tiny()
ARTEFACT_FILES = ("tuned.json", "README.md")


@pytest.fixture
def console():
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run."""
    with open(os.devnull, "w") as nowhere:
        return fit(prepared(RECIPE), tmp_path_factory.mktemp("run"), console=Console(file=nowhere))


def contents(folder: RunFolder) -> list[bytes]:
    return [(folder.artefact / name).read_bytes() for name in ARTEFACT_FILES]


def timeless(folder: RunFolder) -> list[dict]:
    """The metrics, without what differs from run to run."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in folder.read_metrics()]


def test_a_run_leaves_all_that_is_promised(finished):
    folder = finished.folder
    assert not finished.interrupted
    assert folder.recipe.read_text() == writing.to_yaml(RECIPE)
    lines = folder.read_metrics()
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    last = lines.pop()
    losses = ("held_out", "held_out_each", "best_held_out")
    assert set(last) == {"step", "phase", "seconds", *losses}
    assert last["held_out"] == np.mean(last["held_out_each"])
    for line in lines:
        assert line["seconds"] > 0
        assert set(line["hypergradient_norm"]) == {"learning_rates", "mixture"}
        for key, norm in line["hypergradient_norm"].items():
            assert norm == pytest.approx(np.linalg.norm(line["window_norm"][key]), rel=1e-5)
        assert np.isfinite([line["objective"], line["held_out"], line["inner_loss"]]).all()
    assert any(folder.tensorboard.glob("events.out.tfevents*"))
    tuned = artefact.load(folder.path)
    assert tuned.horizon_steps == 6
    assert tuned.horizon_tokens == 6 * 4 * 16
    assert tuned.mixture is not None
    assert tuned.mixture.domains == ("code", "drama")
    assert tuned.result["status"] == "complete"
    assert len(tuned.result["before"]) == len(tuned.result["after"]) == 2
    differences = np.subtract(tuned.result["after"], tuned.result["before"])
    assert tuned.result["difference"] == pytest.approx(differences.mean())
    assert tuned.result["standard_error"] == pytest.approx(differences.std(ddof=1) / 2**0.5)
    assert tuned.provenance["model_config"] == RECIPE.model.config


def test_a_certificate_stays_when_its_recipe_s_artefact_is_replaced(finished, tmp_path):
    folder, tuned = RunFolder(tmp_path), finished.artefact
    certificate = {
        "format": "metatune-certificate",
        "version": 1,
        "verdict": "amber",
        "causes": ["too few seeds"],
        "checks": {},
        "recipe_sha256": tuned.provenance["recipe_sha256"],
    }
    artefact.write(folder.artefact, dataclasses.replace(tuned, certificate=certificate), "")
    assert outer_loop.write_artefact(folder, tuned).certificate == certificate
    assert artefact.load(tmp_path).certificate == certificate
    assert "`certificate.json`: **amber**" in (folder.artefact / "README.md").read_text()


def test_tensorboard_gets_the_search_the_schedules_and_the_recipe(finished):
    tags, texts = set(), {}
    for file in finished.folder.tensorboard.iterdir():
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                tags.add(value.tag)
                texts[value.tag] = value.tensor.string_val
    expected = {
        "objective",
        "held_out",
        "hypergradient_norm/learning_rates",
        "hypergradient_norm/mixture",
        "window_norm/mixture/2",
        "window_mean/learning_rate/model.layers/model.layers.0/3",
        "window_mean/mixture/drama/2",
        "learning_rates/heat_map",
        "mixture/shares",
        "schedule/learning_rate/head/lm_head",
        "schedule/mixture/code",
        "_hparams_/session_start_info",
    }
    assert expected <= tags
    assert b"initializer_range: 0.2" in texts["recipe"][0]


def test_every_point_is_told_once_everywhere(finished, tmp_path, monkeypatch, pictures):
    """On the screen, in the metrics and in TensorBoard, of a run that was stopped near its end."""
    screens = []

    def run(**options):
        screens.append(io.StringIO())
        console = Console(file=screens[-1])
        return fit(prepared(RECIPE), tmp_path, console=console, **options)

    def points(screen):
        return [line for line in screen.getvalue().splitlines() if line.startswith("point ")]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outer_loop, "measure", interrupted)
        stopped = run()
    assert timeless(stopped.folder) == timeless(finished.folder)
    resumed = run(resume=True)
    assert timeless(resumed.folder) == timeless(finished.folder)
    assert contents(resumed.folder) == contents(finished.folder)
    assert [[said.split("  ")[0] for said in points(screen)] for screen in screens] == [
        [f"point {number}/4" for number in range(5)],
        ["point 4/4"],
    ]
    lines = resumed.folder.read_metrics()
    for line, said in zip(lines, points(screens[0]), strict=True):
        assert f"  held-out {line['held_out']:.4f} (best {line['best_held_out']:.4f})  " in said

    events = EventAccumulator(str(resumed.folder.tensorboard)).Reload()

    def series(tag):
        return [(event.step, event.value) for event in events.Scalars(tag)]

    for key in ("held_out", "best_held_out", "objective", "seconds"):
        known = [(line["step"], line[key]) for line in lines if key in line]
        known = known[:-1] if key == "seconds" else known  # the last is of a judgement alone
        assert [step for step, _ in series(key)] == [step for step, _ in known]
        assert [value for _, value in series(key)] == pytest.approx([value for _, value in known])
    means = series("window_mean/learning_rate/head/lm_head/1")
    assert [step for step, _ in means] == [0, 1, 2, 3, 4]
    tuned = resumed.artefact
    curves = curves_of(tuned, range(6))["learning_rates"]
    where = f"Learning rate per update, as tuned: point {tuned.result['best_outer_step']} of 4"
    drawn = heat_map(np.log10(np.stack(list(curves.values()))), list(curves), where, "log10(rate)")
    # The older accumulator, which the scalars are read by, drops no tensors at a restart.
    read = plugin_event_accumulator.EventAccumulator(str(resumed.folder.tensorboard)).Reload()
    maps = read.Tensors("learning_rates/heat_map")
    assert [event.step for event in maps] == [0, 1, 2, 3, 4, 4]
    png = tensor_util.make_ndarray(maps[-1].tensor_proto)[2]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), drawn)


def test_the_point_that_was_chosen_is_the_same_everywhere(finished):
    lines, result = finished.folder.read_metrics(), finished.artefact.result
    best = min(lines, key=lambda line: line["held_out"])
    assert (result["best_outer_step"], result["outer_steps"]) == (best["step"], 4)
    said = f"point {best['step']} of 4"
    assert said in (finished.folder.artefact / "README.md").read_text()
    screen = io.StringIO()
    Console(file=screen, width=100).print(terminal.summary(finished.artefact, lines))
    assert said in screen.getvalue() and "points 0 to 4" in screen.getvalue()
    search = result["search"]
    assert (search["ended"], search["more"]) == ("steps", "outer.steps=8")
    assert search["held_out"]["points"] == [0, 4]
    moved = [line["moved"]["learning_rates"] for line in lines[:-1]]
    assert search["moved"]["learning_rates"] == np.median(moved)
    # Adam's first step moves every log multiplier by its rate.
    assert moved[0] == pytest.approx(0.1, rel=1e-3)


def test_every_parameter_has_its_rate_at_every_step(finished):
    rates = finished.artefact.learning_rates
    assert "model.layers.0.mlp.down_proj.weight" in rates.parameters
    assert "lm_head.weight" in rates.parameters
    multipliers = rates.multipliers
    assert multipliers is not None
    for label, factors in multipliers.groups.items():
        for name in multipliers.members[label]:
            for step in range(6):
                rate = finished.artefact.learning_rate(name, step, 6)
                base = finished_base_rate(step)
                assert rate == pytest.approx(base * factors[step * 3 // 6], rel=3e-7)


def finished_base_rate(step: int) -> float:
    """The recipe's cosine from 1e-2 to 1e-3; a warmup of 5 % of 6 steps is none."""
    return 1e-2 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * step / 6)))


def test_the_same_recipe_gives_the_same_bits(finished, tmp_path, console):
    """Also where it is prepared, traced and compiled again."""
    again = fit(prepare(RECIPE), tmp_path / "again", console=console)
    assert contents(again.folder) == contents(finished.folder)


def test_states_on_disk_give_the_same_bits_and_leave_none(finished, tmp_path, monkeypatch, console):
    kept = []

    def spy(*args, **kwargs):
        result = hypergradient(*args, **kwargs)
        kept.append((kwargs["checkpoints"], result.diagnostics.peak_bytes))
        return result

    monkeypatch.setattr(hypergradients_of, "hypergradient", spy)
    checkpoints = schema.CheckpointsSpec(keep="recursive", slots=1, store="disk")
    estimator = dataclasses.replace(RECIPE.outer.estimator, checkpoints=checkpoints)
    outer = dataclasses.replace(RECIPE.outer, estimator=estimator)
    recipe = dataclasses.replace(RECIPE, outer=outer)
    folder = RunFolder(tmp_path / "run")
    with open_run(folder.path, recipe, {}, resume=False, overwrite=False):
        pass
    (folder.path / INPUTS).unlink()
    folder.scratch.mkdir()
    (folder.scratch / "left.safetensors").write_text("by a killed run")
    outcome = fit(prepared(recipe), folder.path, resume=True, console=console)
    assert (
        taken(outcome.folder.read_metrics())[-1]["objective"]
        == (taken(finished.folder.read_metrics())[-1]["objective"])
    )
    assert {used.store for used, _ in kept} == {"disk"}
    assert all(used.folder == folder.scratch and size > 0 for used, size in kept)
    assert not folder.scratch.exists()


def test_a_run_without_room_for_its_states_goes_on_with_more(finished, tmp_path, console):
    def with_checkpoints(**choices):
        estimator = dataclasses.replace(
            RECIPE.outer.estimator, checkpoints=schema.CheckpointsSpec(**choices)
        )
        return dataclasses.replace(
            RECIPE, outer=dataclasses.replace(RECIPE.outer, estimator=estimator)
        )

    short = with_checkpoints(keep="all", store="disk", budget_bytes=1000)
    with pytest.raises(CheckpointError, match=r"scratch/states-.* needs \d+ bytes, but 1000 of"):
        fit(prepared(short), tmp_path, console=console)
    assert not RunFolder(tmp_path).scratch.exists()
    enough = with_checkpoints(keep="sqrt", store="host")
    outcome = fit(prepared(enough), tmp_path, resume=True, console=console)
    assert outcome.folder.recipe.read_text() == writing.to_yaml(enough)
    assert outcome.artefact.result == finished.artefact.result


ONLINE = dataclasses.replace(
    RECIPE, outer=dataclasses.replace(RECIPE.outer, unroll=schema.OnlineSpec(window=4, lifetime=6))
)


def test_online_the_inner_training_lives_on(tmp_path, monkeypatch, console):
    """Windows of 4 in lives of 6: steps 0 to 4, 4 to 6, and a new training."""
    seen = []

    def spy(problem, eta, state, batches, outer_batches, **options):
        before = np.asarray(jax.tree.leaves(state.params)[0])
        result = hypergradient(problem, eta, state, batches, outer_batches, **options)
        after = np.asarray(jax.tree.leaves(result.state.params)[0])
        seen.append((options["start"], options["steps"], before, after))
        return result

    monkeypatch.setattr(hypergradients_of, "hypergradient", spy)
    outcome = fit(prepared(ONLINE), tmp_path / "run", console=console)
    assert [part[:2] for part in seen] == [(0, 4), (4, 2), (0, 4), (4, 2)]
    np.testing.assert_array_equal(seen[1][2], seen[0][3])
    np.testing.assert_array_equal(seen[3][2], seen[2][3])
    assert (seen[2][2] != seen[0][2]).any()  # another life, another initialisation
    calls = iter(range(100))

    def interrupted(*args, **options):
        if next(calls) == 1:  # in the middle of a life
            raise KeyboardInterrupt
        return hypergradient(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(hypergradients_of, "hypergradient", interrupted)
        fit(prepared(ONLINE), tmp_path / "again", console=console)
    resumed = fit(prepared(ONLINE), tmp_path / "again", resume=True, console=console)
    assert contents(resumed.folder) == contents(outcome.folder)


def test_pairs_live_on_with_their_perturbations(tmp_path, monkeypatch, console):
    """Of windows in lives of 4 and 2 steps; a search that was stopped between them goes on."""
    estimator = schema.PersistentESSpec(pairs=2, segment=2, chunk=2)
    recipe = dataclasses.replace(
        ONLINE, outer=dataclasses.replace(ONLINE.outer, estimator=estimator)
    )
    seen = []

    def spy(problem, eta, state, batches, outer_batches, **options):
        result = hypergradient(problem, eta, state, batches, outer_batches, **options)
        seen.append((state, result.state))
        return result

    monkeypatch.setattr(hypergradients_of, "hypergradient", spy)
    outcome = fit(prepared(recipe), tmp_path / "run", console=console)
    lived = [isinstance(before.opt_state, Lived) for before, _ in seen]
    assert lived == [False, True, False, True]  # each life begins with one training
    for at in (1, 3):
        jax.tree.map(np.testing.assert_array_equal, seen[at][0], seen[at - 1][1])
        assert np.all(seen[at][0].opt_state.total != seen[at][1].opt_state.total)
    lines = taken(outcome.folder.read_metrics())
    assert [line["diverged_sides"] for line in lines] == [0] * 4
    assert all(0 < norm < np.inf for line in lines for norm in line["hypergradient_norm"].values())
    calls = iter(range(100))

    def interrupted(*args, **options):
        if next(calls) == 1:  # in the middle of a life
            raise KeyboardInterrupt
        return hypergradient(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(hypergradients_of, "hypergradient", interrupted)
        fit(prepared(recipe), tmp_path / "again", console=console)
    resumed = fit(prepared(recipe), tmp_path / "again", resume=True, console=console)
    assert contents(resumed.folder) == contents(outcome.folder)
    assert timeless(resumed.folder) == timeless(outcome.folder)


def test_truncated_only_the_last_windows_move(finished, tmp_path, console):
    outer = dataclasses.replace(RECIPE.outer, steps=1, unroll=schema.TruncatedSpec(window=2))
    outcome = fit(prepared(dataclasses.replace(RECIPE, outer=outer)), tmp_path, console=console)
    (line,) = taken(outcome.folder.read_metrics())
    assert line["objective"] == finished.folder.read_metrics()[0]["objective"]
    norms = line["hypergradient_norm"], finished.folder.read_metrics()[0]["hypergradient_norm"]
    assert 0 < norms[0]["learning_rates"] < norms[1]["learning_rates"]


def fitted(out, console, **changes):
    outer = dataclasses.replace(RECIPE.outer, steps=2, **changes)
    recipe = dataclasses.replace(RECIPE, outer=outer)
    return fit(prepared(recipe), out, predict=lambda scratch: None, console=console)


# Of a recipe's training it is the same hypergradient in tests/inner/test_training.py.
@pytest.mark.thorough
def test_forward_mode_goes_the_same_way(finished, tmp_path, console):
    outcome = fitted(tmp_path, console, estimator=schema.ForwardSpec(segment=4))
    found = taken(outcome.folder.read_metrics())
    for line, exact in zip(found, finished.folder.read_metrics()[:2], strict=True):
        assert line["hypergradient_norm"] == pytest.approx(exact["hypergradient_norm"], rel=1e-3)
        assert line["objective"] == pytest.approx(exact["objective"], rel=1e-4)
        assert line["growth"]["of"] == "tangents" and "of" not in exact["growth"]
        assert line["growth"]["steps"][-1] == exact["growth"]["steps"][-1]


DIRECTIONS = {
    "forward gradient": schema.ForwardGradientSpec(directions=3, segment=4),
    "zeroth order": schema.ZerothOrderSpec(directions=2),
}


@pytest.mark.parametrize("estimator", cells(DIRECTIONS, {"forward gradient"}))
def test_random_directions_are_those_of_the_seed_and_the_step(
    tmp_path, monkeypatch, console, estimator
):
    keys = []

    def keep(*args, key, **options):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return hypergradient(*args, key=key, **options)

    monkeypatch.setattr(hypergradients_of, "hypergradient", keep)
    first, again = (
        fitted(tmp_path / name, console, estimator=estimator) for name in ("first", "again")
    )
    assert keys[:2] == keys[2:] and keys[0] != keys[1]
    assert contents(first.folder) == contents(again.folder)


def test_accuracy_is_followed_judged_and_reported(tmp_path, console):
    objective = dataclasses.replace(RECIPE.outer.objective, measure="accuracy")
    estimator = schema.ZerothOrderSpec(directions=1)
    outcome = fitted(tmp_path, console, estimator=estimator, objective=objective)
    result = outcome.artefact.result
    assert result["unit"] == "of negative accuracy over bytes"
    lines = taken(outcome.folder.read_metrics())
    losses = [line[key] for line in lines for key in ("objective", "held_out")]
    assert all(-1 < loss <= 0 for loss in (*losses, *result["before"], *result["after"]))
    # Of 8 sequences with 15 tokens to predict each, weighted by the target.
    assert all(loss * 120 == pytest.approx(round(loss * 120), abs=1e-3) for loss in losses)


def test_an_estimator_without_room_is_refused_before_anything_is_run(tmp_path, console):
    estimator = schema.ForwardSpec(budget_bytes=10**5)
    with pytest.raises(EstimatorError, match="tangents at a time .* set chunk to"):
        fitted(tmp_path, console, estimator=estimator)
    assert RunFolder(tmp_path).read_metrics() == []


def test_judged_now_and_then(tmp_path, console):
    validation = dataclasses.replace(RECIPE.outer.validation, every=3)
    outer = dataclasses.replace(RECIPE.outer, validation=validation)
    outcome = fit(prepared(dataclasses.replace(RECIPE, outer=outer)), tmp_path, console=console)
    lines = outcome.folder.read_metrics()
    assert [line["held_out"] is not None for line in lines] == [True, False, False, True, True]
    assert outcome.artefact.result["best_outer_step"] in (0, 3, 4)


def test_a_finished_run_is_not_measured_again(finished, monkeypatch, console):
    monkeypatch.setattr(outer_loop, "measure", lambda *_: pytest.fail("measured twice"))
    again = fit(prepared(RECIPE), finished.folder.path, resume=True, console=console)
    assert again.artefact.result == finished.artefact.result


def test_a_finished_run_goes_on_to_more_steps_bit_for_bit(finished, tmp_path, console):
    def of(**changes):
        return dataclasses.replace(RECIPE, outer=dataclasses.replace(RECIPE.outer, **changes))

    short = of(steps=2, test=schema.FinalTestSpec(seeds=1, sequences=8))
    fit(prepared(short), tmp_path, console=console)
    resumed = fit(prepared(RECIPE), tmp_path, resume=True, console=console)
    assert contents(resumed.folder) == contents(finished.folder)
    assert [line["step"] for line in resumed.folder.read_metrics()] == [0, 1, 2, 3, 4]


def test_data_that_were_changed_are_refused_before_anything_is_written(finished, console):
    training, folder = prepared(RECIPE), finished.folder
    code, drama = training.corpus.domains
    corpus = dataclasses.replace(
        training.corpus, domains=(dataclasses.replace(code, sha256="0" * 64), drama)
    )
    before = folder.recipe.read_text()
    with pytest.raises(RunFolderError, match=f"data_sha256.code: '{code.sha256}' then, '0{{64}}'"):
        fit(dataclasses.replace(training, corpus=corpus), folder.path, resume=True, console=console)
    assert folder.recipe.read_text() == before


@pytest.mark.parametrize("at", cells([0, 2], [0]))
def test_ctrl_c_leaves_a_valid_run_that_goes_on_bit_for_bit(
    finished, tmp_path, monkeypatch, console, at
):
    calls = iter(range(100))

    def interrupted(*args, **kwargs):
        if next(calls) == at:
            raise KeyboardInterrupt
        return hypergradient(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(hypergradients_of, "hypergradient", interrupted)
        stopped = fit(prepared(RECIPE), tmp_path / "run", console=console)
    assert stopped.interrupted
    assert artefact.load(stopped.folder.path).result["status"] == "unfinished"
    assert len(stopped.folder.read_metrics()) == at
    resumed = fit(prepared(RECIPE), tmp_path / "run", resume=True, console=console)
    assert not resumed.interrupted
    assert contents(resumed.folder) == contents(finished.folder)
    assert timeless(resumed.folder) == timeless(finished.folder)


def test_a_killed_run_goes_on_bit_for_bit(finished, tmp_path, console):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(writing.to_yaml(RECIPE))
    program = (
        f"from metatune.cli import main; main(['fit', {str(recipe)!r}, '--out', {str(out)!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    folder, deadline = RunFolder(out), time.monotonic() + 120
    while len(folder.read_metrics()) < 2 and process.poll() is None:
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = fit(prepared(RECIPE), out, resume=True, console=console)
    assert contents(resumed.folder) == contents(finished.folder)
    assert timeless(resumed.folder) == timeless(finished.folder)


def test_a_hypergradient_that_is_none_keeps_the_last_good_artefact(tmp_path, monkeypatch, console):
    calls = iter(range(100))

    def broken(*args, **kwargs):
        estimate = hypergradient(*args, **kwargs)
        if next(calls) < 2:
            return estimate
        gradient = {**estimate.gradient, "mixture": jnp.full((2, 2), jnp.nan)}
        return estimate._replace(gradient=gradient)

    with monkeypatch.context() as patch:
        patch.setattr(hypergradients_of, "hypergradient", broken)
        with pytest.raises(NotFinite, match="point 2 of the search: the hypergradient of mixture"):
            fit(prepared(RECIPE), tmp_path, console=console)
    *lines, last = RunFolder(tmp_path).read_metrics()
    assert len(lines) == 2
    assert last["ended"]
    assert "the hypergradient of mixture is not finite" in last["diverged"]["why"]
    assert artefact.load(tmp_path).result["status"] == "unfinished"
    outcome = fit(prepared(RECIPE), tmp_path, resume=True, console=console)
    assert not outcome.interrupted
    assert [line["step"] for line in outcome.folder.read_metrics()] == [0, 1, 2, 3, 4]


def test_a_training_that_diverges_says_where(tmp_path):
    console = Console(file=(file := io.StringIO()), width=400)
    optimizer = schema.SGDSpec(learning_rate=1e30, schedule=schema.ConstantSpec(), clip_norm=None)
    recipe = dataclasses.replace(RECIPE, inner=schema.InnerSpec(optimizer, steps=6))
    with pytest.raises(
        NotFinite,
        match=r"point 0 of the search, inner step \d: the inner loss is (nan|inf)"
        ".*lower inner.optimizer.learning_rate",
    ):
        fit(prepared(recipe), tmp_path, console=console)
    assert artefact.load(tmp_path).result["status"] == "unfinished"
    (line,) = metrics = RunFolder(tmp_path).read_metrics()
    found = line["diverged"]
    assert (line["step"], line["held_out"], line["ended"]) == (0, None, True)
    assert (found["training"], found["seed"], found["inner_steps"]) == ("hypergradient", 0, 6)
    (told,) = divergences(metrics)
    assert told.startswith(
        "the search ended at point 0: the hypergradient training of seed 0 diverged at inner step "
        f"{found['inner_step']} of 6 (window "
    )
    assert told in file.getvalue()
    console.print(terminal.summary(artefact.load(tmp_path), metrics))
    assert file.getvalue().count(told) == 2
    assert story(sources.read(tmp_path)).facts[0] == told


def test_a_run_is_not_overwritten(finished, console):
    before = contents(finished.folder)
    with pytest.raises(RunFolderError, match="holds a run already"):
        fit(prepared(RECIPE), finished.folder.path, console=console)
    assert contents(finished.folder) == before


def test_patience_stops_the_search(tmp_path, monkeypatch, console):
    losses = iter([3.0, 2.0, 2.5, 2.4, 2.3, 2.2])

    def told(*_, split, **__):
        return next(losses) if split == "validation" else 3.0

    monkeypatch.setattr(outer_loop, "held_out_loss", told)
    recipe = dataclasses.replace(RECIPE, outer=dataclasses.replace(RECIPE.outer, patience=2))
    outcome = fit(prepared(recipe), tmp_path, console=console)
    held_out = [line["held_out"] for line in outcome.folder.read_metrics()]
    assert held_out == [3.0, 2.0, 2.5, 2.4, 2.3]
    assert outcome.artefact.result["best_outer_step"] == 1


def test_what_is_not_drawn_anew_stays_that_of_the_first_step(tmp_path, monkeypatch, console):
    seen = []

    def spy(problem, eta, state, batches, outer_batches, **kwargs):
        leaf = np.asarray(jax.tree.leaves(state.params)[0])
        seen.append((leaf.tobytes(), batches(0).tokens.tobytes()))
        return hypergradient(problem, eta, state, batches, outer_batches, **kwargs)

    monkeypatch.setattr(hypergradients_of, "hypergradient", spy)
    for initialisation, fresh_data in ((True, False), (False, True)):
        seen.clear()
        fresh = schema.FreshSpec(initialisation=initialisation, data=fresh_data)
        outer = dataclasses.replace(RECIPE.outer, steps=2, fresh=fresh)
        # The mixture decides which windows a batch holds: without it data orders compare.
        tune = schema.TuneSpec(learning_rates=RECIPE.tune.learning_rates)
        recipe = dataclasses.replace(RECIPE, outer=outer, tune=tune)
        fit(prepared(recipe), tmp_path / str(initialisation), console=console)
        (init_0, data_0), (init_1, data_1) = seen
        assert (init_0 != init_1) == initialisation
        assert (data_0 != data_1) == fresh_data


def test_the_best_is_the_smallest_not_the_last():
    search = Search(0, "default", None, "default")
    for step, loss in enumerate([2.0, 1.5, 1.7]):
        search = keep_best(search._replace(step=step, eta=step), loss)
    assert (search.best_eta, search.best_step, search.best_held_out) == (1, 1, 1.5)


def test_rates_that_diverge_under_the_judges_are_not_the_best(tmp_path, monkeypatch):
    console = Console(file=(file := io.StringIO()), width=400)
    judge = NotFinite("judge training 0; lower it", training="validation", seed=1, inner_step=5)
    judgements = iter([3.0, 2.5, judge, 2.7, NotFinite("the last one")])
    reports = iter([3.0, 2.5, 3.0, 2.5])

    def told(*_, split, **__):
        said = next(judgements if split == "validation" else reports)
        if isinstance(said, NotFinite):
            raise said
        return said

    monkeypatch.setattr(outer_loop, "held_out_loss", told)
    outcome = fit(prepared(RECIPE), tmp_path, console=console)
    held_out = [line["held_out"] for line in outcome.folder.read_metrics()]
    assert held_out == [3.0, 2.5, None, 2.7, None]
    diverged = [line.get("diverged") for line in outcome.folder.read_metrics()]
    assert [found is not None for found in diverged] == [False, False, True, False, True]
    third = diverged[2] or {}
    assert (third.get("why"), third.get("seed")) == ("judge training 0", 1)
    assert diverged[4] == {"why": "the last one"}
    assert "a training diverged, that of seed 1, at inner step 5" in file.getvalue()
    assert outcome.artefact.result["best_outer_step"] == 1
    assert outcome.artefact.result["difference"] == -0.5
