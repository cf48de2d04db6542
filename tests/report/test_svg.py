from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from metatune.artefact import (
    Artefact,
    ClassWeights,
    LearningRates,
    LossWeights,
    Mixture,
    Multipliers,
    Optimizer,
)
from metatune.report.svg import POINTS, WIDTH, schedule_svg

SVG = "{http://www.w3.org/2000/svg}"
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


def parsed(artefact, title="Tuned"):
    return ElementTree.fromstring(schedule_svg(artefact, title))


def coordinates(element) -> np.ndarray:
    return np.array([[float(c) for c in p.split(",")] for p in element.get("points").split()])


def curves(root) -> list:
    """The lines of data: those of more points than a grid line has."""
    return [line for line in root.iter(f"{SVG}polyline") if len(coordinates(line)) > 2]


def texts(root) -> list[str]:
    return [element.text for element in root.iter(f"{SVG}text")]


def test_rates_are_beside_the_base_on_a_log_scale():
    root = parsed(tuned({"attention": (0.5, 2.0), "mlp": (1.0, 4.0)}))
    attention, mlp, base = (coordinates(line) for line in curves(root))
    level = base[0, 1]
    np.testing.assert_allclose(base[:, 1], level)
    # Pixels count downwards, and twice the rate is as far up as half of it is down.
    octave = attention[0, 1] - level
    assert octave > 20
    assert attention[-1, 1] == pytest.approx(level - octave, abs=0.2)
    assert mlp[0, 1] == pytest.approx(level, abs=0.2)
    assert mlp[-1, 1] == pytest.approx(level - 2 * octave, abs=0.2)
    # The step is in the middle of the training.
    jump = np.flatnonzero(np.diff(attention[:, 1]))
    assert attention[jump[0], 0] == pytest.approx((base[0, 0] + base[-1, 0]) / 2, abs=0.1)
    assert curves(root)[-1].get("stroke-dasharray")
    assert {"base default", "attention", "mlp"} <= set(texts(root))


def test_areas_are_as_high_as_the_shares():
    code, prose = (
        coordinates(area) for area in parsed(tuned({"a": (1.0, 1.0)})).iter(f"{SVG}polygon")
    )
    bottom, top = code[:, 1].max(), prose[:, 1].min()
    first, last = code[0, 1], code[len(code) // 2 - 1, 1]
    assert (bottom - first) / (bottom - top) == pytest.approx(0.25, abs=1e-3)
    assert (bottom - last) / (bottom - top) == pytest.approx(0.5, abs=1e-3)
    # The second area stands on the first.
    assert prose[-1, 1] == pytest.approx(first) and prose[len(prose) // 2, 1] == pytest.approx(last)


def test_the_caption_is_the_measured_result():
    root = parsed(tuned({"a": (1.0, 2.0)}))
    caption = (
        "Tuned: better than the default by 0.085 nats/token (95 % interval of 5 pairs 0.074 to "
        "0.096)."
    )
    assert caption in " ".join(texts(root))
    description = root.find(f"{SVG}desc")
    assert description is not None and description.text is not None
    assert caption in description.text and "10 steps, 5,120 tokens" in description.text


def test_everything_is_inside_the_page_and_stands_alone():
    names = {f"model.layers.{i}.mlp.down_proj.weight": (1.0, 1.0 + i) for i in range(20)}
    document = schedule_svg(tuned(names), "Tuned")
    root = ElementTree.fromstring(document)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert width == WIDTH == float(root.attrib["width"])
    for element in [*root.iter(f"{SVG}polyline"), *root.iter(f"{SVG}polygon")]:
        points = coordinates(element)
        assert (points >= 0).all() and (points <= [width, height]).all()
    baselines = [float(element.attrib["y"]) for element in root.iter(f"{SVG}text")]
    assert min(baselines) > 12 and max(baselines) < height
    assert "href" not in document and "<style" not in document and "<script" not in document


def test_of_many_groups_some_are_named_and_all_are_drawn():
    root = parsed(tuned({f"group {i}": (1.0, 2.0) for i in range(20)}))
    lines = curves(root)
    assert len(lines) == 21
    assert len({line.get("stroke") for line in lines}) == 21
    named = [text for text in texts(root) if text.startswith("group ")]
    assert named == ["group 0", "group 4", "group 8", "group 11", "group 15", "group 19"]
    assert "6 of 20 named; colours follow their order" in texts(root)


def test_a_long_training_is_thinned():
    (line, *_) = curves(parsed(tuned({"a": (1.0, 2.0)}, steps=5000)))
    assert len(coordinates(line)) == 2 * POINTS


def test_panels_follow_what_there_is():
    alone = parsed(tuned({"a": (1.0, 2.0)}, mixture=False))
    beside = parsed(tuned({"a": (1.0, 2.0)}))
    assert not list(alone.iter(f"{SVG}polygon"))
    assert np.ptp(coordinates(curves(alone)[0])[:, 0]) > 1.8 * np.ptp(
        coordinates(curves(beside)[0])[:, 0]
    )
    weighted = parsed(tuned({"a": (1.0, 2.0)}, mixture=False, weights=True))
    assert "Weights of the loss" in texts(weighted)
    assert len(curves(weighted)) == 4
    of_classes = ClassWeights(
        (0.0,), "constant", ("prompt", "completion"), np.array([0.5, 0.5]), 2 * SHARES[:1]
    )
    classed = parsed(replace(tuned({"a": (1.0, 2.0)}, mixture=False), loss_weights=of_classes))
    assert {"Weights of the loss", "prompt", "completion"} <= set(texts(classed))


def test_names_are_escaped():
    root = parsed(tuned({"a<b & c": (1.0, 2.0)}), title='Rates & <shares> "tuned"')
    assert "a<b & c" in texts(root)
    assert texts(root)[0] == 'Rates & <shares> "tuned"'
