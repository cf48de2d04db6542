"""Pictures for TensorBoard, read back from their pixels."""

import matplotlib
import numpy as np
import pytest

from metatune.report.colours import CATEGORICAL
from metatune.report.pictures.thumbnails import (
    FONT,
    HEIGHT,
    SHOWN,
    WIDTH,
    heat_map,
    line_plot,
    stacked_area,
)

LEAST_PIXELS = 9
"""Of text that can be read."""


def rgb(colour):
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def viridis(fraction):
    return tuple(round(255 * c) for c in matplotlib.colormaps["viridis"](fraction)[:3])


def places(picture, colour):
    """Rows and columns [n, 2] of the pixels of a colour, or of its neighbour in a colour map."""
    return np.argwhere((np.abs(picture.astype(int) - colour) <= 3).all(-1))


def test_text_can_be_read_at_the_size_that_tensorboard_shows():
    for across, down in SHOWN.values():
        assert FONT * min(across / WIDTH, down / HEIGHT) >= LEAST_PIXELS


def test_each_cell_has_the_colour_and_the_place_of_its_value():
    values = np.array([[0.0, 2.0, 5.0], [1.0, 3.0, 4.0]])
    picture = heat_map(values, ["above", "below"], "title", "unit")
    assert picture.dtype == np.uint8 and picture.shape == (HEIGHT, WIDTH, 3)
    # The colour bar, at the right, holds every colour too, but less of it.
    centres = np.array(
        [[np.median(places(picture, viridis(v / 5.0)), axis=0) for v in row] for row in values]
    )
    rows, columns = centres[..., 0], centres[..., 1]
    assert (np.ptp(rows, axis=1) <= 3).all() and (np.ptp(columns, axis=0) <= 3).all()
    np.testing.assert_allclose(rows[1] - rows[0], (HEIGHT - 88 - 96) / 2, atol=2)
    widths = np.diff(columns[0])
    assert (widths > 100).all() and abs(widths[0] - widths[1]) <= 2


def test_many_rows_stand_by_their_kinds():
    names = [f"model.layers.{i}.{kind}.w" for i in range(20) for kind in ("mlp", "self_attn")]
    values = np.array([[float("mlp" in name)] for name in names])
    picture = heat_map(values, names, "title", "unit")
    mlp, attention = (places(picture[:, :600], viridis(v))[:, 0] for v in (1.0, 0.0))
    assert mlp.max() < attention.min() + 2  # the layers of the first stand above those of the other
    assert np.ptp(mlp) == pytest.approx(np.ptp(attention), abs=3)
    with pytest.raises(ValueError, match="row_labels: 1 for 2 rows of values; give one for each"):
        heat_map(np.ones((2, 3)), ["one"], "t", "u")


def test_equal_values_and_many_columns_can_be_drawn():
    equal = places(heat_map(np.ones((2, 3)), ["a", "b"], "t", "u"), viridis(0.5))
    assert len(equal) > 10_000
    picture = heat_map(np.arange(20_000.0)[None], ["a"], "t", "u")
    lightness = picture[200, 100:600].astype(float).sum(-1)
    assert lightness[-1] > lightness[300] > lightness[0]


def test_lines_go_where_the_values_are():
    falling, flat = np.array([1.0, 0.1, 0.01]), np.full(3, 0.1)
    picture = line_plot({"falling": falling, "flat": flat}, "t", "u", log=True)[:420]
    flat_rows = np.unique(places(picture, rgb(CATEGORICAL[1]))[:, 0])
    pixels = places(picture, rgb(CATEGORICAL[0]))
    high, hidden, low = (pixels[pixels[:, 1] == x][:, 0] for x in (200, 480, 750))
    assert len(hidden) == 0 and np.ptp(flat_rows) <= 3
    # On a log scale the three values are equally far apart.
    assert high.mean() + low.mean() == pytest.approx(2 * flat_rows.mean(), abs=3)
    assert low.mean() - high.mean() > 200
    with pytest.raises(ValueError, match="needs a value above 0, the largest is 0: use a linear"):
        line_plot({"a": np.zeros(3)}, "t", "u", log=True)


def test_areas_are_as_high_as_the_shares():
    shares = {"code": np.array([0.25, 0.5]), "prose": np.array([0.75, 0.5])}
    picture = stacked_area(shares, "t", "u")[:424]
    heights = {
        tint: [len(places(picture[:, x : x + 1], rgb(tint))) for x in (250, 700)]
        for tint in CATEGORICAL[:2]
    }
    whole = HEIGHT - 88 - 176
    np.testing.assert_allclose(heights[CATEGORICAL[0]], [whole / 4, whole / 2], atol=3)
    np.testing.assert_allclose(heights[CATEGORICAL[1]], [3 * whole / 4, whole / 2], atol=3)
    # The first is at the bottom.
    assert tuple(picture[415, 250]) == rgb(CATEGORICAL[0])
    assert tuple(picture[95, 250]) == rgb(CATEGORICAL[1])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: line_plot({}, "t", "u"), r"nothing to draw: shapes \{\}; give series of one"),
        (
            lambda: line_plot({"a": np.ones(2), "b": np.ones(3)}, "t", "u"),
            r"different lengths: \{'a': \(2,\), 'b': \(3,\)\}; give each a value for each step",
        ),
        (
            lambda: line_plot({"a": np.array([1.0, np.nan])}, "t", "u"),
            "series 'a' holds values that aren't finite; leave them out",
        ),
        (
            lambda: stacked_area({"a": np.array([-0.5])}, "t", "u"),
            "shares: -0.5 is negative; allowed: 0 or above",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
