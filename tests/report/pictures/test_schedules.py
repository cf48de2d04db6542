import re
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from report.drawn import areas, lines, parsed, paths, texts

from metatune.artefact import (
    Artefact,
    ClassWeights,
    LearningRates,
    LossWeights,
    Mixture,
    Multipliers,
    Optimizer,
)
from metatune.report.pictures.canvas import points
from metatune.report.pictures.schedules import POINTS, WIDTH, schedule_svg

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
SHARES = np.array([[0.25, 0.75], [0.5, 0.5]])


def tuned(groups, *, steps=10, mixture=True, weights=False) -> Artefact:
    """A base rate of 1e-3; `groups` maps names to multipliers of the two halves."""
    half = np.arange(steps) * 2 // steps
    return Artefact(
        steps,
        512 * steps,
        LearningRates(
            tuple(step / steps for step in range(steps)),
            "constant",
            {name: 1e-3 * np.asarray(factors)[half] for name, factors in groups.items()},
            Multipliers((0.0, 0.5), groups, {name: (name,) for name in groups}),
        ),
        Mixture((0.0, 0.5), "constant", ("code", "prose"), SHARES) if mixture else None,
        LossWeights((0.0,), "constant", ("code", "prose"), 2 * SHARES[:1]) if weights else None,
        Optimizer({"kind": "adamw"}, ()),
        {},
        RESULT,
    )


def picture(artefact, title="Tuned"):
    return parsed(schedule_svg(artefact, title))


def test_rates_are_beside_the_base_on_a_log_scale():
    root = picture(tuned({"attention": (0.5, 2.0), "mlp": (1.0, 4.0)}))
    attention, mlp, base = (line.points for line in lines(root))
    level = base[0, 1]
    np.testing.assert_allclose(base[:, 1], level)
    # Lengths count downwards, and twice the rate is as far up as half of it is down.
    octave = attention[0, 1] - level
    assert octave > 20
    assert attention[-1, 1] == pytest.approx(level - octave, abs=0.01)
    assert mlp[0, 1] == pytest.approx(level, abs=0.01)
    assert mlp[-1, 1] == pytest.approx(level - 2 * octave, abs=0.01)
    # The step is in the middle of the training.
    jump = np.flatnonzero(np.diff(attention[:, 1]))
    assert attention[jump[0], 0] == pytest.approx((base[0, 0] + base[-1, 0]) / 2, abs=0.01)
    assert [line.dashed for line in lines(root)] == [False, False, True]
    assert {"base default", "attention", "mlp"} <= set(texts(root))


def test_areas_are_as_high_as_the_shares():
    code, prose = (area.points for area in areas(picture(tuned({"a": (1.0, 1.0)}))))
    bottom, top = code[:, 1].max(), prose[:, 1].min()
    middle = (code[:, 0].min() + code[:, 0].max()) / 2
    first, last = (code[side, 1].min() for side in (code[:, 0] < middle, code[:, 0] > middle))
    assert (bottom - first) / (bottom - top) == pytest.approx(0.25, abs=1e-3)
    assert (bottom - last) / (bottom - top) == pytest.approx(0.5, abs=1e-3)
    # The second area stands on the first.
    assert {round(y, 3) for y in prose[:, 1]} >= {round(first, 3), round(last, 3)}


def test_the_caption_is_the_measured_result():
    document = schedule_svg(tuned({"a": (1.0, 2.0)}), "Tuned")
    caption = (
        "Tuned: better than the default by 0.085 nats/token (95 % interval of 5 pairs 0.074 to "
        "0.096)."
    )
    assert caption in " ".join(texts(parsed(document)))
    described = document[document.index("<dc:description>") : document.index("</dc:description>")]
    assert caption in described and "10 steps, 5,120 tokens" in described


def test_a_picture_stands_alone_and_comes_out_the_same_again(monkeypatch):
    names = {f"model.layers.{i}.mlp.down_proj.weight": (1.0, 1.0 + i) for i in range(20)}
    document = schedule_svg(tuned(names), "Tuned")
    # What a user has set for pictures of their own changes nothing.
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["serif"])
    assert schedule_svg(tuned(names), "Tuned") == document
    assert matplotlib.rcParams["lines.linewidth"] == 9.0
    assert document.startswith("<svg ") and "<script" not in document
    assert not re.findall(r'(?:href|src)="(?!#)', document) and "url(http" not in document
    root = parsed(document)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert width == pytest.approx(points(WIDTH))
    for path in paths(root):
        assert (path.points >= -0.01).all() and (path.points <= [width, height]).all()


def test_of_many_groups_all_are_drawn_and_their_kinds_are_named():
    kinds = {"self_attn.q_proj": 10, "mlp.up_proj": 8}
    names = [f"model.layers.{i}.{kind}.weight" for kind, n in kinds.items() for i in range(n)]
    root = picture(tuned({name: (1.0, 2.0) for name in [*names, "odd", "even"]}))
    assert len(lines(root)) == 21
    assert len({line.stroke for line in lines(root)}) == 21
    said = texts(root)
    assert [said.count(word) for word in ("attention", "mlp", "odd", "even")] == [1, 1, 1, 1]
    assert not any("layers" in text for text in said)


def test_a_long_training_is_thinned():
    (line, *_) = lines(picture(tuned({"a": (1.0, 2.0)}, steps=5000)))
    assert len(line.points) <= 2 * POINTS


def test_panels_follow_what_there_is():
    alone = picture(tuned({"a": (1.0, 2.0)}, mixture=False))
    beside = picture(tuned({"a": (1.0, 2.0)}))
    assert not areas(alone)
    wide, narrow = (np.ptp(lines(root)[0].points[:, 0]) for root in (alone, beside))
    assert wide > 1.8 * narrow
    weighted = picture(tuned({"a": (1.0, 2.0)}, mixture=False, weights=True))
    assert "Weights of the loss" in texts(weighted)
    assert len(lines(weighted)) == 4
    of_classes = ClassWeights(
        (0.0,), "constant", ("prompt", "completion"), np.array([0.5, 0.5]), 2 * SHARES[:1]
    )
    classed = picture(replace(tuned({"a": (1.0, 2.0)}, mixture=False), loss_weights=of_classes))
    assert {"Weights of the loss", "prompt", "completion"} <= set(texts(classed))


def test_names_are_escaped_and_no_formulas():
    root = picture(tuned({"a<b & $c$": (1.0, 2.0)}), title='Rates & <shares> "tuned" $x_1$')
    assert {"a<b & $c$", 'Rates & <shares> "tuned" $x_1$'} <= set(texts(root))
