"""The script that prints and draws a ladder by two rules, on losses made by hand: no trainings."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from metatune.ladder.candidates import BASELINES, LEVELS, Candidate
from metatune.ladder.record import LadderRecord
from metatune.ladder.rungs import parse
from metatune.report.pictures.panels import line_chart

SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce_transfer.py"
WORDS = ["steps=2", "width=2"]
OWN = {"recipe_sha256": "ab", "best_outer_step": 3}
SEEDS = (5, 6, 7)


def script():
    spec = importlib.util.spec_from_file_location("reproduce_transfer", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rows(tmp_path):
    """The same gain of 0.4 by the rule at every rung; without one it is gone above the proxy."""
    rungs = parse(WORDS)
    for rule, gains in (("none", (0.4, 0.0, -0.1)), ("complete_d_p", (0.4, 0.4, 0.4))):
        record = LadderRecord(tmp_path, {"rule": rule, **OWN})
        for number, (rung, gain) in enumerate(zip(rungs, gains, strict=True)):
            if number == 2:
                record.predict(rung.key, {"gain": 0.4, "low": 0.3, "high": 0.5})
            for seed in SEEDS:
                default = 3.0 - 0.5 * number + 0.1 * (seed - 6)
                tuned = default - gain + 0.01 * (seed - 6)
                losses = {"tuned": tuned, "tuned x0.5": tuned + 0.1, "tuned x2": tuned + 0.2}
                for which in BASELINES:
                    for level in LEVELS:
                        name = Candidate(which, level).name
                        losses[name] = default + 0.3 * (name != "default")
                losses |= {"rates": default - 0.1, "mixture": default - 0.3}
                if rung.steps > 1:
                    losses["by update"] = default - 0.05
                for name, loss in losses.items():
                    record.add(rung, SimpleNamespace(name=name), seed, loss)  # pyright: ignore
    tuned = SimpleNamespace(
        transfer={
            "rungs": [
                {
                    "name": rung.name,
                    "parameters": 1000 * rung.width,
                    "steps": 10 * rung.steps,
                    "operations": 10.0**number,
                }
                for number, rung in enumerate(rungs)
            ]
        },
        provenance={"recipe_sha256": "ab"},
        result={"best_outer_step": 3},
    )
    module = script()
    return module, *(module.rows(tmp_path, tuned, rule, rungs) for rule in ("complete_d_p", "none"))


def test_the_table_has_each_rung_by_both_rules(rows):
    module, carried, plain = rows
    head, line, *told = module.measured(carried, plain)
    columns = head.count("|")
    assert {row.count("|") for row in (line, *told)} == {columns}
    proxy, longer, wide = ([cell.strip() for cell in row.split("|")[1:-1]] for row in told)
    assert proxy[:5] == ["proxy", "1,000", "10", "×1", "3.0000"]
    assert longer[5] == "2.5000 (default), 12"
    assert (wide[6], wide[7]) == ("2.1000", "**1.6000**")
    assert wide[9] == "100 %"
    assert wide[11:] == ["×1", "+0.3000 to +0.5000: holds"]


def test_what_is_lost_or_kept_is_taken_apart(rows):
    module, carried, _ = rows
    lines = list(module.ablations(carried))
    cells = {
        row.split("|")[1].strip(): [cell.strip()[:7] for cell in row.split("|")[2:-1]]
        for row in lines[2:]
    }
    assert cells["rates alone"] == ["+0.1000"] * 3
    assert cells["mixture alone"] == ["+0.3000"] * 3
    assert cells["both, read by update"] == ["", "+0.0500", ""]
    assert cells["rates and mixture, by share of the training"] == ["+0.4000"] * 3


def test_what_is_asked_of_a_ladder_is_told_with_its_numbers(rows):
    module, carried, plain = rows
    told = list(module.verdicts(carried, plain))
    assert [holding for holding, _ in told] == [True] * 5
    assert "12 baselines" in told[1][1]
    assert "100 %; without a rule -25 %" in told[2][1]
    assert "1 of 1" in told[4][1]
    # The other way round all but the level fails, where it can be told.
    told = list(module.verdicts(plain, carried))
    assert [holding for holding, _ in told] == [False, False, False, True, False]


def test_a_picture_is_drawn(rows):
    module, carried, plain = rows
    drawn = line_chart("title", module.panels(carried, plain), "caption")
    for said in ("tuned, without a rule", "best baseline", "predicted before", "mixture alone"):
        assert said in drawn


def test_a_rung_that_is_not_trained_to_its_end_is_left_out(rows, tmp_path, capsys):
    module, _, _ = rows
    rungs = parse([*WORDS, "depth=2"])
    tuned = SimpleNamespace(
        transfer={"rungs": []},
        provenance={"recipe_sha256": "ab"},
        result={"best_outer_step": 3},
    )
    assert module.rows(tmp_path, tuned, "none", rungs) == []
    assert "depth x2 by none: not trained" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no ladder was climbed"):
        module.rows(tmp_path, SimpleNamespace(transfer=None), "none", rungs)
