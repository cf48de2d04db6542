"""What TensorBoard is given of a search: tags, charts of several, pictures."""

import re

import numpy as np
import pytest
from report.events import picture, values

from metatune.artefact import Artefact, LearningRates, Mixture, Multipliers, Optimizer
from metatune.report.tensorboard import EventWriter
from metatune.report.tracked import layout, write_point, write_schedules

pytestmark = pytest.mark.usefixtures("pictures")


def test_a_point(tmp_path):
    rates = {"a": np.array([1.0, 2.0, 3.0, 4.0, 5.0]) * 1e-3, "b": np.full(5, 1e-4)}
    shares = {"code": np.array([0.2, 0.2, 0.4, 0.4, 0.9])}
    shares["prose"] = 1 - shares["code"]
    optimizer = {"weight_decay a.weight": np.full(5, 0.1), "b1": np.array([0.9] * 3 + [0.8] * 2)}
    with EventWriter(tmp_path) as writer:
        write_point(
            writer,
            step=7,
            scalars={"objective": 2.5, "hypergradient_norm/mixture": 0.5},
            curves={"learning_rates": rates, "mixture": shares, "optimizer": optimizer},
            windows={
                "learning_rates": {"learning_rates": 2},
                "mixture": {"mixture": 2},
                "optimizer": {"weight_decay": 1, "b1": 2},
            },
        )
    read = values(tmp_path)
    numbers = {tag: float(at[7]) for tag, at in read.items() if at[7].ndim == 0}
    assert numbers == pytest.approx(
        {
            "objective": 2.5,
            "hypergradient_norm/mixture": 0.5,
            # Steps 0 to 2 are the first half of 5, as step * 2 // 5 says.
            "window_mean/learning_rate/a/1": 2e-3,
            "window_mean/learning_rate/a/2": 4.5e-3,
            "window_mean/learning_rate/b/1": 1e-4,
            "window_mean/learning_rate/b/2": 1e-4,
            "window_mean/mixture/code/1": 0.8 / 3,
            "window_mean/mixture/code/2": 0.65,
            "window_mean/mixture/prose/1": 2.2 / 3,
            "window_mean/mixture/prose/2": 0.35,
            "window_mean/optimizer/weight_decay a.weight/1": 0.1,
            "window_mean/optimizer/b1/1": 0.9,
            "window_mean/optimizer/b1/2": 0.8,
        },
        rel=1e-6,
    )
    pictures = {tag: picture(at[7]) for tag, at in read.items() if at[7].ndim == 1}
    assert set(pictures) == {
        "learning_rates/heat_map",
        "learning_rates/curves",
        "mixture/shares",
        "optimizer/curves",
    }
    assert all(len(np.unique(p.reshape(-1, 3), axis=0)) > 4 for p in pictures.values())


def test_without_windows_the_whole_training_is_one(tmp_path):
    with EventWriter(tmp_path) as writer:
        rates = {"learning_rates": {"a": np.array([1.0, 2.0])}}
        write_point(writer, step=0, scalars={}, curves=rates, windows={})
    read = values(tmp_path)
    scalars = {tag: float(at[0]) for tag, at in read.items() if at[0].ndim == 0}
    assert scalars == {"window_mean/learning_rate/a/1": 1.5}
    assert "mixture/shares" not in read


def test_tuned_schedules_over_inner_steps(tmp_path):
    base = np.array([1.0, 2.0, 4.0, 3.0])
    rates = LearningRates(
        (0.0, 0.25, 0.5, 0.75),
        "constant",
        {"x.weight": base * [0.5, 0.5, 2.0, 2.0], "y.weight": base},
        Multipliers((0.0, 0.5), {"x": (0.5, 2.0)}, {"x": ("x.weight",)}),
    )
    mixture = Mixture(
        (0.0, 0.5), "constant", ("code", "prose"), np.array([[0.5, 0.5], [0.75, 0.25]])
    )
    tuned = Artefact(4, 4096, rates, mixture, None, Optimizer({}, ()), {}, {})
    with EventWriter(tmp_path) as writer:
        write_schedules(writer, tuned)
    read = {tag: [float(v) for v in at.values()] for tag, at in values(tmp_path).items()}
    assert read == {
        "schedule/learning_rate/x": [0.5, 1.0, 8.0, 6.0],
        "schedule/mixture/code": [0.5, 0.5, 0.75, 0.75],
        "schedule/mixture/prose": [0.5, 0.5, 0.25, 0.25],
    }


def test_many_curves_share_a_chart_for_each_kind(tmp_path):
    names = [
        f"model.layers.{layer}.{module}.weight"
        for layer in range(3)
        for module in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "input_layernorm")
    ]
    curves = {
        "learning_rates": {name: np.ones(4) for name in [*names, "lm_head.weight"]},
        "mixture": {"code": np.ones(4), "a+b": np.zeros(4)},
    }
    windows = {"learning_rates": {"learning_rates": 2}, "mixture": {"mixture": 2}}
    page = layout(curves, windows)
    assert "loss by size" not in page["search"]
    assert "loss by size" in layout(curves, windows, by_size=True)["search"]
    with EventWriter(tmp_path) as writer:
        write_point(writer, step=0, scalars={}, curves=curves, windows=windows)
    written = [tag for tag, at in values(tmp_path).items() if at[0].ndim == 0]
    charts = page["over points of the search"]
    rates = "Learning rate per update, means over windows"
    assert [*charts] == [
        *(f"{rates}: {kind}" for kind in ("attention", "mlp", "norm", "head")),
        "Mixture, share of sequences, means over windows",
    ]
    # As TensorBoard asks for them; each tag is in one chart.
    shown = [
        [tag for tag in written for expression in tags if re.match(expression, tag)]
        for tags in charts.values()
    ]
    assert [len(tags) for tags in shown] == [12, 6, 6, 2, 4]
    assert sorted(tag for tags in shown for tag in tags) == sorted(written)
    # Pages of single charts fold them into one group.
    assert {tag.partition("/")[0] for tag in written} == {"window_mean"}
    assert [*page["as tuned, over inner steps"]] == [
        *(f"Learning rate per update: {kind}" for kind in ("attention", "mlp", "norm", "head")),
        "Mixture, share of sequences",
    ]
