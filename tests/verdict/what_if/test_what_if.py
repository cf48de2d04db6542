"""What-if on a tiny run: its derivatives, its record, its check, and the command."""

import json
import shutil
from typing import Any

import numpy as np
import pytest
from recipes import tiny
from rich.console import Console
from typer.testing import CliRunner

from metatune import artefact
from metatune.cli.commands import app
from metatune.fit.outer_loop import fit
from metatune.fit.run_folder import RunFolderError
from metatune.inner import prepare, prepare_file
from metatune.inner.seeds import Purpose
from metatune.ladder.progress import Display
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.verdict.derivatives import shifted
from metatune.verdict.what_if.asking import CHECKED, ask
from metatune.verdict.what_if.changes import parsed
from metatune.verdict.what_if.record import FILE, Answers, hashed
from metatune.verdict.what_if.sensitivity import rows, table

QUIET = Console(quiet=True)
CHANGE = ("mixture.code[2]+=0.1", "learning_rates.'lm_head'*=1.5")


def metatune(*arguments):
    return CliRunner().invoke(app, [str(word) for word in arguments])


def training_of(folder):
    return prepare_file(folder.recipe)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("what-if") / "run"
    fit(prepare(tiny(inner={"steps": 6}, outer={"steps": 2})), out, console=QUIET)
    return out


@pytest.fixture(scope="module")
def asking(run):
    return ask(run, training_of, 3)


@pytest.fixture(scope="module")
def delta(asking):
    return asking.moved(asking.point(parsed(CHANGE)))


def lines(run):
    return [json.loads(line) for line in (run / FILE).read_text().splitlines()]


def test_the_slope_is_that_of_differences_and_the_rest_is_small(asking, delta):
    """A small change: of slope and curvature together nothing is left."""
    with asking.opened(Display(QUIET, 1.0)) as opened:
        slopes = [float(row @ delta) for row in opened.gradients()]
        for seed in range(2):
            sides = [
                opened.derivatives.objective(
                    shifted(asking.eta, asking.slices(delta), sign * 0.05), seed
                )
                for sign in (1, -1)
            ]
            assert slopes[seed] == pytest.approx((sides[0] - sides[1]) / 0.1, rel=0.02)
        found = opened.prediction(delta, "a change")
    assert found.bends == 2
    assert abs(found.rest) < 0.1 * abs(found.slope)
    assert found.low < found.change < found.high


def test_what_was_computed_is_not_computed_again(run, asking, delta, monkeypatch):
    with asking.opened(Display(QUIET, 1.0)) as opened:
        found = opened.prediction(delta, "a change")
    known = len(lines(run))
    monkeypatch.setattr("metatune.verdict.derivatives.train", None)
    monkeypatch.setattr("metatune.verdict.derivatives.hypergradient", None)
    with asking.opened(Display(QUIET, 1.0)) as opened:
        assert opened.prediction(delta, "a change") == found
        # Of the other direction all is known, too; of further seeds nothing.
        assert opened.prediction(-delta, "another").second == pytest.approx(found.second)
    assert len(lines(run)) == known


def test_a_record_that_was_cut_off_goes_on(run, asking, delta, tmp_path):
    with asking.opened(Display(QUIET, 1.0)) as opened:
        found = opened.prediction(delta, "a change")
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    whole = (copy / FILE).read_bytes()
    (copy / FILE).write_bytes(whole[: len(whole) // 2])
    with ask(copy, training_of, 3).opened(Display(QUIET, 1.0)) as opened:
        again = opened.prediction(delta, "a change")
    assert again == pytest.approx(found)
    assert len(lines(copy)) == len(whole.splitlines())


def test_a_check_is_of_trainings_by_the_changed_schedules(run, asking, delta):
    from metatune.fit.trainers.evaluation import held_out_loss

    with asking.opened(Display(QUIET, 1.0)) as opened:
        found = opened.measurement(delta, "a change", 2)

    def loss(eta, index):
        return held_out_loss(
            asking.training,
            eta,
            purpose=Purpose.VALIDATION,
            index=CHECKED + index,
            split="validation",
            sequences=8,
        )

    moved = shifted(asking.eta, asking.slices(delta))
    apart = [loss(moved, index) - loss(asking.eta, index) for index in range(2)]
    assert found.mean == pytest.approx(np.mean(apart), abs=1e-6)
    assert found.seeds == 2


def test_a_run_is_sensitive_to_each_domain_by_window_and_to_rates(asking):
    found = rows(asking)
    assert [row.change for row in found if row.part_of is None] == [
        "mixture.code+=0.05",
        "mixture.drama+=0.05",
        "learning_rates.all*=1.5",
        "learning_rates.all/=1.5",
        *(
            f"learning_rates.{name}{operator}1.5"
            for name in ("lm_head", "model.embed_tokens", "model.layers.0", "model.norm")
            for operator in ("*=", "/=")
        ),
    ]
    assert "mixture.drama[2]+=0.05" in [row.change for row in found]
    few = [row for row in found if "code" in row.change or "all" in row.change]
    with asking.opened(Display(QUIET, 1.0)) as opened:
        told: dict[str, Any] = {row.change: each for row, each in table(opened, few)}
    known = len(lines(asking.folder.path))
    few = [row for row in few if row.part_of or "/=" in row.change]
    with asking.opened(Display(QUIET, 1.0)) as opened:
        table(opened, few)
    assert len(lines(asking.folder.path)) == known
    bent = {(line["delta"], line["seed"]) for line in lines(asking.folder.path)}
    delta = asking.moved(asking.point(parsed(["learning_rates.all/=1.5"])))
    assert {(hashed(sign * delta), seed) for sign in (1, -1) for seed in range(2)} <= bent
    assert hashed(-delta) == hashed(asking.moved(asking.point(parsed(["learning_rates.all*=1.5"]))))
    up, down = told["learning_rates.all*=1.5"], told["learning_rates.all/=1.5"]
    assert up.slope == pytest.approx(-down.slope, rel=1e-4)
    assert up.second == pytest.approx(down.second)
    # To first order a domain in all windows is the sum of its windows.
    windows = [told[f"mixture.code[{window}]+=0.05"] for window in (1, 2)]
    assert told["mixture.code+=0.05"].slope == pytest.approx(
        sum(each.slope for each in windows), rel=1e-3
    )
    assert windows[0].second == pytest.approx(told["mixture.code+=0.05"].second / 2)


@pytest.mark.parametrize("line", ['{"of": {}}', "[1, 2]"])
def test_a_line_that_is_no_answer_is_named(tmp_path, line):
    (tmp_path / FILE).write_text(line + "\n")
    with pytest.raises(RunFolderError, match=r"what-if\.jsonl: line 1 is (no answer|damaged)"):
        Answers(tmp_path, {})


def test_the_command_predicts_checks_and_prints_json(run):
    done = metatune("what-if", run, *CHANGE, "--seeds", 3, "--train", "--pairs", 2, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["changes"] == list(CHANGE)
    predicted, measured = document["predicted"], document["measured"]
    assert predicted["low"] < predicted["change"] < predicted["high"]
    apart = abs(measured["mean"] - predicted["change"])
    reach = np.hypot(predicted["half"], (measured["high"] - measured["low"]) / 2)
    assert document["held"] == bool(apart <= reach)
    said = metatune("what-if", run, *CHANGE, "--seeds", 3, "--train", "--pairs", 2)
    assert f"predicted: {predicted['change']:+.4f} ± {predicted['half']:.4f} nats" in said.stdout
    assert "curvature" in said.stdout
    assert "by 2 pairs of fresh seeds" in said.stdout


def test_the_command_refuses_in_words(run, tmp_path):
    done = metatune("what-if", run, "mixture.cod=0.6")
    assert done.exit_code == 2
    assert "did you mean code?" in done.output
    assert metatune("what-if", run, "--train").exit_code == 2
    done = metatune("what-if", run, "--pairs", 3)
    assert done.exit_code == 2
    assert "--pairs without --train" in done.output
    with pytest.raises(RunFolderError, match="is no run folder"):
        ask(tmp_path, training_of)


def test_a_run_that_tunes_neither_is_refused(tmp_path):
    averaging = schema.TuneSpec(averaging=schema.AveragingSpec())
    fit(prepare(tiny(tune=averaging, outer={"steps": 1})), tmp_path / "run", console=QUIET)
    with pytest.raises(RecipeError, match="what-if changes mixture and learning_rates"):
        ask(tmp_path / "run", training_of)
    assert artefact.load(tmp_path / "run").mixture is None
