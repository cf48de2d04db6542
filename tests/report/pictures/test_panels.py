"""Charts of measured curves, read back from their SVG."""

import re

import numpy as np
import pytest
from report.drawn import SVG, lines, parsed, texts

from metatune.report.pictures.panels import Curve, Panel, line_chart


def drawn(*panels):
    return parsed(line_chart("Title <1>", panels, "What is seen."))


def test_a_power_law_is_straight_on_logarithmic_axes():
    curve = Curve([1, 10, 100], [8, 4, 2])
    (line,) = lines(drawn(Panel("Law", "b", {"measured": curve}, log_x=True, log_y=True)))
    steps = np.diff(line.points, axis=0)
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-4)
    assert np.all(steps > 0)  # to the right, and down as values fall
    (bent,) = lines(drawn(Panel("Law", "b", {"measured": curve})))
    assert np.diff(bent.points[:, 0])[1] == pytest.approx(10 * np.diff(bent.points[:, 0])[0])


def test_dots_stand_where_something_was_measured():
    curves = {"measured": Curve([0, 1, 2], [1, 3, 2]), "law": Curve([0, 1, 2], [1, 2, 3], True)}
    root = drawn(Panel("Two", "x", curves))
    measured, law = lines(root)
    inside = [g for g in root.iter(f"{SVG}g") if "clip-path" in g.attrib]
    dots = [(float(u.attrib["x"]), float(u.attrib["y"])) for g in inside for u in g]
    np.testing.assert_allclose(dots, measured.points, atol=1e-4)
    assert law.dashed and not measured.dashed


def test_a_value_of_stairs_holds_up_to_the_next():
    (line,) = lines(drawn(Panel("Best", "x", {"best": Curve([0, 1, 2], [3, 2, 1], stairs=True)})))
    points = line.points
    assert len(points) == 5
    assert points[1, 1] == points[0, 1] and points[1, 0] == points[2, 0]


def test_panels_stand_in_rows_of_two_with_all_that_is_said():
    panel = Panel("Left", "steps", {"one": Curve([0, 5, 9], [0, 1, 4])})
    other = Panel("Right", "seconds", {"two": Curve([1, 2, 3], [5, 5, 5])})
    root = drawn(panel, other, other)
    assert {"Title <1>", "What is seen.", "Left", "Right", "steps", "seconds", "one", "two"} <= set(
        texts(root)
    )
    first, second, third = (line.points for line in lines(root))
    assert first[:, 0].max() < second[:, 0].min()
    assert third[:, 0].max() < second[:, 0].min() and third[:, 1].min() > second[:, 1].max()
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for element in root.iter(f"{SVG}text"):
        placed = element.get("transform") or f"{element.attrib['x']} {element.attrib['y']}"
        x, y = map(float, re.findall(r"-?[\d.]+", placed)[-2:])
        assert 0 <= x <= width and 0 <= y <= height
