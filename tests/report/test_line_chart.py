"""Charts of measured curves, read back from their SVG."""

from xml.etree import ElementTree

import numpy as np
import pytest

from metatune.report.line_chart import Curve, Panel, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*panels):
    return ElementTree.fromstring(line_chart("Title <1>", panels, "What is seen."))


def lines(root) -> list[np.ndarray]:
    """The points of the curves: the lines of more than two."""
    found = [
        np.array(
            [[float(c) for c in point.split(",")] for point in element.attrib["points"].split()]
        )
        for element in root.iter(f"{SVG}polyline")
    ]
    return [points for points in found if len(points) > 2]


def texts(root) -> list[str]:
    return [element.text for element in root.iter(f"{SVG}text")]


def test_a_power_law_is_straight_on_logarithmic_axes():
    curve = Curve([1, 10, 100], [8, 4, 2])
    (points,) = lines(drawn(Panel("Law", "b", {"measured": curve}, log_x=True, log_y=True)))
    steps = np.diff(points, axis=0)
    np.testing.assert_allclose(steps[0], steps[1], atol=0.11)  # px are written with one decimal
    assert np.all(steps > 0)  # to the right, and down as values fall
    (bent,) = lines(drawn(Panel("Law", "b", {"measured": curve})))
    assert np.diff(bent[:, 0])[1] == pytest.approx(10 * np.diff(bent[:, 0])[0], rel=0.05)


def test_dots_stand_where_something_was_measured():
    curves = {"measured": Curve([0, 1, 2], [1, 3, 2]), "law": Curve([0, 1, 2], [1, 2, 3], True)}
    root = drawn(Panel("Two", "x", curves))
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter(f"{SVG}circle")]
    np.testing.assert_allclose(dots, lines(root)[0])
    dashed = [line for line in root.iter(f"{SVG}polyline") if line.get("stroke-dasharray")]
    assert len(dashed) == 2  # the curve and its key


def test_a_value_of_stairs_holds_up_to_the_next():
    (points,) = lines(drawn(Panel("Best", "x", {"best": Curve([0, 1, 2], [3, 2, 1], stairs=True)})))
    assert len(points) == 5
    assert points[1, 1] == points[0, 1] and points[1, 0] == points[2, 0]


def test_panels_stand_in_rows_of_two_with_all_that_is_said():
    panel = Panel("Left", "steps", {"one": Curve([0, 5, 9], [0, 1, 4])})
    other = Panel("Right", "seconds", {"two": Curve([1, 2, 3], [5, 5, 5])})
    root = drawn(panel, other, other)
    assert {"Title <1>", "What is seen.", "Left", "Right", "steps", "seconds", "one", "two"} <= set(
        texts(root)
    )
    first, second, third = lines(root)
    assert first[:, 0].max() < second[:, 0].min()
    assert third[:, 0].max() < second[:, 0].min() and third[:, 1].min() > second[:, 1].max()
    height, width = float(root.attrib["height"]), float(root.attrib["width"])
    for element in root.iter(f"{SVG}text"):
        assert (
            0 <= float(element.attrib["x"]) <= width and 0 <= float(element.attrib["y"]) <= height
        )
