import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from metatune.artefact import Artefact, LearningRates, LossWeights, Mixture, Multipliers, Optimizer
from metatune.report.terminal import sparkline, summary

RESULT = {
    "status": "complete",
    "unit": "nats per token",
    "objective_before": 2.4133,
    "objective_after": 2.3286,
    "difference": -0.0847,
    "standard_error": 0.004,
    "held_out_seeds": [0, 1, 2, 3, 4],
    "before": [2.41, 2.42, 2.41, 2.41, 2.41],
    "after": [2.32, 2.34, 2.32, 2.32, 2.33],
    "best_outer_step": 27,
    "outer_steps": 30,
}
UNFINISHED = RESULT | {
    "status": "unfinished",
    "objective_before": None,
    "objective_after": None,
    "difference": None,
    "standard_error": None,
    "held_out_seeds": [],
    "before": [],
    "after": [],
}


def tuned(result, *, rates: bool = True, weights: bool = False) -> Artefact:
    multipliers = Multipliers(
        (0.0, 0.5),
        {"layers[0]": (0.5, 2.0), "head": (1.0, 1.0)},
        {"layers[0]": ("q",), "head": ("lm_head",)},
    )
    q = np.array([0.5, 0.5, 1.0, 1.0]) * 1e-3
    shares = np.array([[0.25, 0.75], [0.625, 0.375]])
    domains = ("code", "prose")
    return Artefact(
        4,
        2048,
        LearningRates(
            (0.0, 0.25, 0.5, 0.75),
            "constant",
            {"q": q, "lm_head": np.full(4, 1e-3) if rates else q},
            multipliers if rates else None,
        ),
        None if weights else Mixture((0.0, 0.5), "constant", domains, shares),
        LossWeights((0.0, 0.5), "constant", domains, 2 * shares) if weights else None,
        Optimizer({"kind": "adamw"}, ()),
        {"metatune": "0.1.0", "recipe_sha256": "f" * 64},
        result,
    )


def printed(artefact, metrics=(), width=100) -> str:
    output = io.StringIO()
    Console(width=width, file=output).print(summary(artefact, metrics))
    return output.getvalue()


def row(text: str, name: str) -> list[str]:
    """The cells of the only line that begins with `name`."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
    return line.split()[1:]


def test_the_summary_holds_the_result_and_the_schedules():
    text = printed(tuned(RESULT))
    assert (
        "better than the default by 0.085 nats/token (95 % interval of 5 pairs 0.074 to 0.096)"
        in text
    )
    assert "default 2.4133 → tuned 2.3286 nats per token, held out, 5 paired trainings" in text
    assert "tuned: point 27 of 30, the best" in text
    assert "horizon: 4 steps, 2,048 tokens" in text
    assert row(text, "layers[0]") == ["▁▁██", "5.0e-04", "1.0e-03", "0.50", "▁█", "2.00"]
    assert row(text, "head") == ["████", "1.0e-03", "1.0e-03", "1.00", "▅▅", "1.00"]
    assert row(text, "code") == ["▃▇", "25.0%", "62.5%"]
    assert row(text, "prose") == ["█▅", "75.0%", "37.5%"]
    assert row(text, "recipe") == ["ffffffffffff"]


def test_the_search_over_its_points():
    metrics = [
        {"step": 0, "objective": 3.0, "held_out": None},
        {"step": 1, "objective": 1.0, "held_out": 2.5},
        {"step": 2, "objective": 2.0, "held_out": 2.5},
        {"step": 3, "held_out": 2.0},
    ]
    text = printed(tuned(RESULT), metrics)
    assert "search, points 0 to 3" in text
    assert row(text, "objective") == ["█▁▅", "3.0000", "2.0000", "1.0000"]
    assert row(text, "held_out") == ["██▁", "2.5000", "2.0000", "2.0000"]
    assert "search" not in printed(tuned(RESULT), [])


def test_an_unfinished_run_shows_no_numbers_that_were_not_measured():
    text = printed(tuned(UNFINISHED))
    assert "unfinished after 30 outer steps: nothing is measured yet" in text
    assert "None" not in text and "paired" not in text
    assert row(text, "code") == ["▃▇", "25.0%", "62.5%"]


def test_without_tuned_rates_the_base_is_shown():
    text = printed(tuned(RESULT, rates=False))
    assert row(text, "base") == ["▁▁██", "5.0e-04", "1.0e-03", "1.00", "▅", "1.00"]


def test_loss_weights():
    text = printed(tuned(RESULT, weights=True))
    assert row(text, "code") == ["▃▇", "0.50", "1.25"]
    assert "%" not in text.replace("95 % interval", "")


def test_no_line_is_wider_than_the_terminal():
    text = printed(tuned(RESULT), width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert "5.0e-04" in text and "62.5%" in text


@pytest.mark.parametrize(
    ("width", "cells"),
    [
        (100, ["▁▁██", "5.0e-04", "1.0e-03", "0.50", "▁█", "2.00"]),
        (66, ["5.0e-04", "1.0e-03", "0.50", "▁█", "2.00"]),
        (60, ["5.0e-04", "1.0e-03", "0.50", "2.00"]),
    ],
)
def test_the_plot_of_what_was_tuned_is_the_last_to_be_left_out_for_long_names(width, cells):
    name = "model.layers.1.post_attention_layernorm.weight"
    plain = tuned(RESULT)
    rates = plain.learning_rates
    assert rates is not None and rates.multipliers is not None
    multipliers = Multipliers(
        rates.multipliers.knots,
        {name: (0.5, 2.0), "head": (1.0, 1.0)},
        {name: ("q",), "head": ("lm_head",)},
    )
    artefact = replace(plain, learning_rates=replace(rates, multipliers=multipliers))
    (line,) = (line for line in printed(artefact, width=width).splitlines() if "2.00" in line)
    assert line.split()[1:] == cells


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇██"),
        ([-9, 4, 99], "▁▅█"),
        (np.linspace(0, 8, 1001), "▁▃▅▇█"),
    ],
)
def test_sparkline(values, bars):
    assert sparkline(np.asarray(values), 0, 8, max(len(bars), 3)) == bars


def test_a_constant_sparkline_is_in_the_middle():
    assert sparkline(np.ones(3), 1, 1) == "▅▅▅"
