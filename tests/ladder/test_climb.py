"""A ladder that is climbed: the same trainings as the run's own, resumed exactly, refused early."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from cells import cells
from recipes import tiny
from rich.console import Console

from metatune import artefact
from metatune.artefact.curves import curves_at, rows_at
from metatune.fit.artefact_folder import complete
from metatune.fit.outer_loop import fit
from metatune.fit.run_folder import RunFolder, RunFolderError
from metatune.inner import prepare, prepare_file
from metatune.ladder import climb, memory, preparing, retuning
from metatune.ladder.beyond import operations_of, parameters_of, points_of, warning
from metatune.ladder.candidates import TUNED, by_update, constant, leveled, target_alone
from metatune.ladder.judging import PARTS
from metatune.ladder.measuring import following, held_out_loss
from metatune.ladder.naming import predicted_at
from metatune.ladder.prediction import predict
from metatune.ladder.progress import Display
from metatune.ladder.record import FILE
from metatune.ladder.rungs import parse
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.report.transfer import beyond, lines, table
from metatune.runs.kinds import RUN, foreign

QUIET = Console(quiet=True)


def proxy(folder):
    return prepare_file(folder.recipe)


def climbed(run, words=("width=2", "steps=2"), rule=None):
    found = preparing.ladder(run, proxy, parse(words), rule, 2)
    return climb.climb(found, Display(QUIET, 1.0))


def timeless(document):
    """Without the times at which predictions were made."""
    document = json.loads(json.dumps(document))
    for rung in document["rungs"]:
        if rung["predicted"]:
            del rung["predicted"]["made"]
    return document


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("ladder") / "run"
    fit(prepare(tiny(outer={"steps": 1})), out, console=QUIET)
    return out


@pytest.fixture(scope="module")
def document(run):
    return climbed(run)


def test_at_the_proxy_a_training_is_that_of_the_run_s_result(run):
    """To the last bit, by another way through the code: schedules of an artefact, not of η."""
    tuned = artefact.load(run)
    training = proxy(RunFolder(run))
    followed = following(training, tuned)
    losses = [held_out_loss(followed, index) for index in (0, 1)]
    assert losses == pytest.approx(tuned.result["after"], rel=1e-6)


def test_a_climb_leaves_all_that_is_promised(run, document):
    ledger = artefact.load(run).transfer
    assert ledger == document
    assert json.loads((run / "artefact" / "transfer.json").read_text()) == document
    assert document["verdict"] in (run / "artefact" / "README.md").read_text()
    assert [rung["name"] for rung in document["rungs"]] == ["proxy", "steps x2", "width x2"]
    own, longer, wide = document["rungs"]
    assert (own["steps"], longer["steps"], wide["steps"]) == (6, 12, 6)
    assert wide["parameters"] > own["parameters"] == longer["parameters"]
    levels = {f"{which}{level}" for which in ("default", "tuned") for level in LEVELS}
    levels |= {f"target{level}" for level in LEVELS[:-1]} | {"rates", "mixture"}
    for rung in document["rungs"]:
        # Of the longer training alone it matters by what curves are read; the top has constants.
        own_levels = levels | ({"by update"} if rung is longer else set())
        constants = {f"{which} constant{level}" for which in BASES for level in LEVELS[:-1]}
        own_levels |= constants if rung is wide else set()
        swept = set(rung["losses"]) - own_levels
        assert own_levels <= set(rung["losses"])
        # Fast rates are better here: baselines go on until they turn.
        assert "target x4" in swept
        bases = {*BASES, *(f"{base} constant" for base in BASES if rung is wide)}
        assert {name.split(" x")[0] for name in swept} <= bases
        best = rung["best"].split(" x")
        assert f"{best[0]} x{2 * float(best[1]):g}" in swept or best[1] == "16"
        assert all(len(losses) == 2 for losses in rung["losses"].values())
    gain = sum(own["losses"]["default"]) / 2 - sum(own["losses"]["tuned"]) / 2
    assert own["gain"]["mean"] == pytest.approx(gain)
    parts = [np.subtract(own["losses"]["default"], own["losses"][part]) for part in PARTS[:2]]
    assert own["rates_gain"]["mean"] == pytest.approx(parts[0].mean())
    assert own["mixture_gain"]["mean"] == pytest.approx(parts[1].mean())
    read = np.subtract(longer["losses"]["default"], longer["losses"]["by update"])
    assert longer["by_update_gain"]["mean"] == pytest.approx(read.mean())
    assert own["by_update_gain"] is wide["by_update_gain"] is own["of_search"] is None
    assert own["predicted"] is longer["predicted"] is None
    assert set(wide["predicted"]) >= {"gain", "low", "high", "line", "made", "holds"}
    assert [each["times"] for each in document["farther"]] == [4.0, 64.0]
    assert any("initial" in line or "fresh" in line for line in wide["left"])
    for width in (80, 200):
        console = Console(width=width, file=(file := io.StringIO()))
        console.print(table(document))
        said = file.getvalue()
        assert max(map(len, said.splitlines())) <= width
        assert "width x2" in said
        assert f"{own['gain']['mean']:+.4f}" in said
    assert len(beyond(document)) == 2


LEVELS = ("", " x0.5", " x2", " x0.1")
BASES = ("default", "target")


def test_predictions_are_made_before_their_rung_is_trained(run, document):
    lines = [json.loads(line) for line in (run / FILE).read_text().splitlines()]
    names = [line["rung"] for line in lines]
    at = next(i for i, line in enumerate(lines) if "prediction" in line)
    assert "width x2" not in names[:at]
    assert names[at:].count("width x2") == len(names) - at


@pytest.mark.parametrize("kept", cells([9, -30], [9]))
def test_a_killed_climb_goes_on_to_the_same_numbers(run, document, tmp_path, kept):
    """Also where a line was cut off."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    lines = (copy / FILE).read_text().splitlines(keepends=True)
    (copy / FILE).write_text("".join(lines[:kept]) + lines[kept][:20])
    again = climbed(copy)
    assert timeless(again) == timeless(document)
    assert len((copy / FILE).read_text().splitlines()) == len(lines)


def test_another_rule_is_another_ladder(run, document, tmp_path, let_go):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = len(let_go)
    other = climbed(copy, ("width=2",), "none")
    assert len(let_go) == before + 2  # after each rung
    assert other["rule"] == "none"
    own = {rung["name"]: rung for rung in document["rungs"]}
    one, wide = other["rungs"]
    # What is not carried is the same at the proxy, and another at twice the width.
    assert one["losses"] == own["proxy"]["losses"]
    assert wide["losses"] != own["width x2"]["losses"]
    assert timeless(climbed(copy)) == timeless(document)


def test_a_level_is_of_all_rates(run):
    tuned = artefact.load(run)
    half = leveled(tuned, 0.5)
    for name, curve in tuned.learning_rates.parameters.items():
        assert list(half.learning_rates.parameters[name]) == [0.5 * value for value in curve]
    assert leveled(tuned, TUNED.level) is tuned


def test_a_constant_baseline_stays_where_its_rates_are_highest(run):
    tuned = artefact.load(run)
    for name, curve in constant(tuned).learning_rates.parameters.items():
        own = tuned.learning_rates.parameters[name]
        assert curve[0] == own[0]
        assert curve[-1] == max(own)
        assert all(np.diff(curve) >= 0)


@pytest.mark.parametrize("times", cells([2, 3], [2]))
def test_curves_read_by_update_use_at_each_what_the_proxy_did_then_its_last(run, times):
    tuned = artefact.load(run)
    read = by_update(tuned, times)
    steps = range(6 * times)
    before = [min(step, 5) for step in steps]
    rates = tuned.learning_rates.over(before, 6)
    np.testing.assert_array_equal(read.learning_rates.over(steps, 6 * times), rates)
    assert tuned.mixture is not None and read.mixture is not None
    np.testing.assert_array_equal(
        rows_at(read.mixture, steps, 6 * times), rows_at(tuned.mixture, before, 6)
    )
    for name, curve in multipliers_at_steps(read, steps, 6 * times).items():
        assert curve == pytest.approx(multipliers_at_steps(tuned, before, 6)[name])


def multipliers_at_steps(tuned, steps, total):
    found = tuned.learning_rates.multipliers
    assert found is not None
    curves = {name: np.asarray(values) for name, values in found.groups.items()}
    return curves_at(found, curves, steps, total)


def test_the_target_alone_is_trained_on_nothing_else(run):
    tuned = artefact.load(run)
    alone = target_alone(tuned)
    assert alone is not None and alone.mixture is not None
    shares = dict(zip(alone.mixture.domains, alone.mixture.weights[0], strict=True))
    assert shares == {"code": 1.0, "drama": 0.0}
    elsewhere = {**tuned.provenance, "target": {"code": 0.5, "other": 0.5}}
    assert target_alone(dataclasses.replace(tuned, provenance=elsewhere)) is None
    assert target_alone(dataclasses.replace(tuned, mixture=None)) is None


def test_what_cannot_be_climbed_is_refused_before_it_is_trained(run, tmp_path):
    with pytest.raises(RunFolderError, match="is no run folder"):
        preparing.ladder(tmp_path, proxy, parse(["width=2"]), None, 2)
    with pytest.raises(artefact.ArtefactError, match="allowed: none, mup"):
        preparing.ladder(run, proxy, parse(["width=2"]), "mupp", 2)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    tuned = json.loads((copy / "artefact" / "tuned.json").read_text())
    assert tuned["result"]["status"] == "complete"

    def other_data(folder):
        return prepare_file(folder.recipe, ["data.domains.code.max_tokens=200000"])

    with pytest.raises(RunFolderError, match="data"):
        preparing.ladder(copy, other_data, parse(["width=2"]), None, 2)


def test_a_training_far_beyond_the_rungs_is_warned_of(run, document):
    """With the interval of the ladder; without one, from twice the proxy's compute on."""
    tuned = artefact.load(run)
    config = dict(tuned.provenance["model_config"])
    vocabulary = tuned.provenance["vocab_size"]
    own, tokens = parameters_of(config, vocabulary), tuned.horizon_tokens
    assert operations_of(own, tokens) == pytest.approx(document["rungs"][0]["operations"])
    largest = max(document["rungs"], key=lambda rung: rung["operations"])
    read = round(largest["operations"] / (6 * largest["parameters"]))
    assert warning(tuned, 2 * largest["parameters"], read) is None
    far = warning(tuned, 2 * largest["parameters"], 2 * read)
    assert far is not None
    (told, _) = document["farther"]
    assert far.startswith("4 times the compute of the largest rung")
    assert f"a gain of {told['gain']:.4f} is predicted" in far
    assert f"{told['low']:.4f} to {told['high']:.4f} nats per byte" in far
    unmeasured = dataclasses.replace(tuned, transfer=None)
    assert warning(unmeasured, 2 * own, tokens) is None
    never = warning(unmeasured, 2.1 * own, tokens)
    assert never is not None
    assert "was never measured" in never


def test_a_ledger_is_of_its_own_schedules_alone(run, document):
    tuned = artefact.load(run)
    other = dataclasses.replace(tuned, result={**tuned.result, "best_outer_step": 0})
    assert artefact.with_ledger(other, document).transfer is None
    assert artefact.with_ledger(tuned, document).transfer == document
    file = run / "artefact" / "transfer.json"
    whole = file.read_text()
    file.write_text(whole + " ")
    try:
        with pytest.raises(artefact.ArtefactError, match=r"transfer\.json"):
            artefact.load(run)
    finally:
        file.write_text(whole)


def test_a_gain_is_predicted_at_a_model_that_is_named(run, document, tmp_path):
    """By the line of the ledger, kept there with its time, also by a ladder that goes on."""
    copy, model = tmp_path / "run", tmp_path / "big"
    shutil.copytree(run, copy)
    model.mkdir()
    folder, tuned = complete(copy)
    config = dict(tuned.provenance["model_config"]) | {"vocab_size": tuned.provenance["vocab_size"]}
    config |= {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 8}
    (model / "config.json").write_text(json.dumps(config))
    found = predicted_at(folder, tuned, model, 60)
    parameters = parameters_of(config, None)
    operations = operations_of(parameters, 10 * tuned.horizon_tokens)
    made = predict(points_of(document), operations, parameters)
    assert made is not None
    assert (found["gain"], found["low"], found["high"]) == (made.gain, made.low, made.high)
    assert found["times"] == operations / max(rung["operations"] for rung in document["rungs"])
    ledger = artefact.load(copy).transfer
    assert ledger is not None
    assert ledger["farther"] == [*document["farther"], found]
    told = lines(ledger)
    assert told[-1].startswith(f"at {model}, 60 steps (")
    again = predicted_at(folder, artefact.load(copy), model, 60)
    kept = artefact.load(copy).transfer
    assert kept is not None
    assert kept["farther"] == [*document["farther"], again]
    assert climbed(copy)["farther"] == kept["farther"]
    without = dataclasses.replace(tuned, transfer=None)
    with pytest.raises(artefact.ArtefactError, match=r"transfer\.json.*isn't there"):
        predicted_at(folder, without, model, 60)
    (model / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(RecipeError):
        predicted_at(folder, tuned, model, 60)


def test_a_rung_may_be_a_config_of_the_same_family(run, tmp_path):
    """The same losses as the rung of the same sizes; another family is refused by name."""
    tuned = artefact.load(run)
    config = dict(tuned.provenance["model_config"])
    config |= {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4}
    (tmp_path / "big").mkdir()
    file = tmp_path / "big" / "config.json"
    file.write_text(json.dumps(config))
    found = preparing.ladder(run, proxy, parse(["width=2", str(file)]), None, 2)
    _, wide, named = found.steps
    assert named.rung.name == "big"
    losses = [held_out_loss(each.followed(TUNED), 3) for each in (wide, named)]
    assert losses[0] == losses[1]
    file.write_text(json.dumps({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2}))
    with pytest.raises(artefact.ArtefactError, match="big, model_type = 'gpt2'.*'llama'"):
        preparing.ladder(run, proxy, parse([str(file)]), None, 2)


def test_a_rung_that_the_device_has_no_room_for_is_refused_and_what_fits_is_named(run, monkeypatch):
    rungs = parse(["width=2,4"])
    found = preparing.ladder(run, proxy, rungs, None, 2)
    needed = [memory.needed_bytes(step.followed(TUNED)) for step in found.steps]
    assert needed == sorted(needed)
    monkeypatch.setattr(memory, "limit_bytes", lambda: needed[1])
    with pytest.raises(
        RecipeError, match=r"--ladder = 'width x4'.*largest rung that fits is width x2"
    ):
        preparing.ladder(run, proxy, rungs, None, 2)
    monkeypatch.setattr(memory, "limit_bytes", lambda: needed[0] - 1)
    with pytest.raises(RecipeError, match="none of the rungs fits"):
        preparing.ladder(run, proxy, rungs, None, 2)


def test_what_is_carried_is_held_against_a_search_at_the_rung(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    found = preparing.ladder(copy, proxy, parse(["width=2"]), None, 2)
    with pytest.raises(RecipeError, match="--retune = 'width x3'.*did you mean width x2"):
        retuning.chosen(found, ["width x3"])
    steps = retuning.chosen(found, ["all"])
    assert retuning.search_work(found, steps) > 0
    found = retuning.searched(found, steps, QUIET)
    assert retuning.search_work(found, steps) == 0
    folder = copy / "retuned" / "width-x2"
    retuned = artefact.load(folder)
    assert retuned.provenance["model_config"]["hidden_size"] == 16
    document = climb.climb(found, Display(QUIET, 1.0))
    _, wide = document["rungs"]
    assert foreign(copy, RUN) == []  # so that --overwrite replaces what a ladder left, too
    losses = wide["losses"]
    searched = np.mean(losses["default"]) - np.mean(losses["retuned"])
    assert wide["search_gain"]["mean"] == pytest.approx(searched)
    followed = following(found.steps[1].training, retuned)
    assert losses["retuned"] == [held_out_loss(followed, index) for index in found.seeds]


# Said by the same check in tests/inner/test_learning_rates.py.
@pytest.mark.thorough
def test_what_no_training_follows_is_refused_before_one_begins(tmp_path):
    rates, out = schema.LearningRatesSpec(per="row"), tmp_path / "run"
    fit(prepare(tiny(tune={"learning_rates": rates}, outer={"steps": 1})), out, console=QUIET)
    with pytest.raises(artefact.ArtefactError, match=r"learning_rates\.elements"):
        preparing.ladder(out, proxy, parse(["steps=2"]), None, 2)
    assert not (out / FILE).exists()
