import numpy as np
import pytest

from metatune.report.heat_map import WIDTH, heat_map, line_plot, stacked_area
from metatune.report.scales import (
    CATEGORICAL,
    colours,
    evenly,
    linear_ticks,
    log_floor,
    log_ticks,
    palette,
)


def places(picture: np.ndarray, colour) -> np.ndarray:
    """Where exactly this colour is: [pixels, (row, column)]."""
    return np.argwhere((picture == np.asarray(colour, np.uint8)).all(-1))


def oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB to Oklab by the published forward matrices."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    lms = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(lms) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def test_colours_are_perceptually_uniform_and_ever_lighter():
    seen = oklab(colours(np.linspace(0, 1, 17)).astype(float))
    steps = np.linalg.norm(np.diff(seen, axis=0), axis=1)
    # Colours are rounded to 8 bits, that is about 0.002 in Oklab.
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.08)
    assert (np.diff(seen[:, 0]) > 0.02).all()


def test_each_cell_has_the_colour_and_the_place_of_its_value():
    values = np.array([[0.0, 2.0, 5.0], [1.0, 3.0, 4.0]])
    picture = heat_map(values, ["above", "below"], "title", "unit")
    assert picture.dtype == np.uint8 and picture.shape[1:] == (WIDTH, 3)
    # The colour bar, at the right, holds every colour too, but less of it.
    centres = np.array(
        [[np.median(places(picture, colours(v / 5.0)), axis=0) for v in row] for row in values]
    )
    rows, columns = centres[..., 0], centres[..., 1]
    assert (np.ptp(rows, axis=1) <= 1).all() and (np.ptp(columns, axis=0) <= 1).all()
    np.testing.assert_allclose(rows[1] - rows[0], 18, atol=1)
    widths = np.diff(columns[0])
    assert (widths > 100).all() and abs(widths[0] - widths[1]) <= 1


def test_the_largest_value_is_the_lightest():
    values = np.zeros((3, 4))
    values[1, 2] = 7.0
    picture = heat_map(values, ["a", "b", "c"], "title", "unit")
    cell = places(picture, colours(1.0))
    cell = cell[cell[:, 1] < WIDTH - 110]  # not the colour bar
    assert np.ptp(cell[:, 0]) == 17
    dark = places(picture, colours(0.0))
    assert dark[:, 0].min() < cell[:, 0].min() and dark[:, 0].max() > cell[:, 0].max()


def test_equal_values_and_many_columns_can_be_drawn():
    assert len(places(heat_map(np.ones((2, 3)), ["a", "b"], "t", "u"), colours(0.0))) > 10_000
    picture = heat_map(np.arange(20_000.0)[None], ["a"], "t", "u")
    lightness = picture[50, 100:700].astype(float).sum(-1)
    assert lightness[-1] > lightness[300] > lightness[0]


def test_the_height_of_a_heat_map_of_many_rows_is_bounded():
    rows = 300
    picture = heat_map(np.zeros((rows, 2)), [str(i) for i in range(rows)], "t", "u")
    assert picture.shape[0] < 6 * rows + 200


def test_lines_go_where_the_values_are():
    falling, flat = np.array([1.0, 0.1, 0.01]), np.full(3, 0.1)
    picture = line_plot({"falling": falling, "flat": flat}, "t", "u", log=True)
    flat_rows = np.unique(places(picture[:400], CATEGORICAL[1])[:, 0])
    pixels = places(picture[:400], CATEGORICAL[0])
    high, hidden, low = (pixels[pixels[:, 1] == x][:, 0] for x in (200, 480, 800))
    assert len(hidden) == 0 and np.ptp(flat_rows) <= 3
    # On a log scale the three values are equally far apart.
    assert high.mean() + low.mean() == pytest.approx(2 * flat_rows.mean(), abs=3)
    assert low.mean() - high.mean() > 200


def test_a_log_scale_has_a_floor():
    np.testing.assert_allclose(log_floor(np.array([0.0, 1e-9, 0.5, 2.0])), [2e-3, 2e-3, 0.5, 2.0])
    with pytest.raises(ValueError, match="needs a value above 0, the largest is 0: use a linear"):
        line_plot({"a": np.zeros(3)}, "t", "u", log=True)


def test_areas_are_as_high_as_the_shares():
    shares = {"code": np.array([0.25, 0.5]), "prose": np.array([0.75, 0.5])}
    picture = stacked_area(shares, "t", "u")[:378]
    heights = {
        tint: [(picture[:, x] == np.array(tint)).all(-1).sum() for x in (200, 700)]
        for tint in CATEGORICAL[:2]
    }
    np.testing.assert_allclose(heights[CATEGORICAL[0]], [80, 160], atol=2)
    np.testing.assert_allclose(heights[CATEGORICAL[1]], [240, 160], atol=2)
    # The first is at the bottom.
    assert (picture[370, 200] == CATEGORICAL[0]).all()
    assert (picture[70, 200] == CATEGORICAL[1]).all()


@pytest.mark.parametrize("count", [1, 6, 7, 40])
def test_series_have_colours_of_their_own(count):
    assert len(set(palette(count))) == count


def test_ticks_are_round_numbers_inside_the_range():
    assert linear_ticks(0, 200) == [0, 50, 100, 150, 200]
    assert linear_ticks(-0.11, 0.32) == [-0.1, 0.0, 0.1, 0.2, 0.3]
    assert log_ticks(1e-4, 6e-3) == [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3]
    assert log_ticks(1e-6, 0.2) == [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1]
    # Where no two of these lie inside: round numbers of a linear scale.
    assert log_ticks(3.0e-3, 3.4e-3) == [3.0e-3, 3.1e-3, 3.2e-3, 3.3e-3, 3.4e-3]


def test_even_choices_keep_both_ends():
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(101, 5) == [0, 25, 50, 75, 100]


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
        (
            lambda: heat_map(np.ones((2, 3)), ["one"], "t", "u"),
            "row_labels: 1 for 2 rows of values; give one for each row",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
