"""Where along a training the objective is taken."""

import pytest

from metatune.recipe.schema import TrajectorySpec
from metatune.recipe.trajectory import points


@pytest.mark.parametrize(
    ("exponent", "weights"),
    [(0, [1, 1, 1, 1]), (1, [1, 2, 3, 4]), (-1, [12, 6, 4, 3]), (2, [1, 4, 9, 16])],
)
def test_points_are_parts_of_the_training_with_weights_by_their_powers(exponent, weights):
    found = points(TrajectorySpec(4, exponent), 10)
    assert list(found) == [3, 5, 8, 10]
    assert list(found.values()) == pytest.approx([w / sum(weights) for w in weights])


def test_a_stretch_of_fewer_steps_joins_points():
    assert points(TrajectorySpec(4), 2) == pytest.approx({1: 0.5, 2: 0.5})
    assert points(TrajectorySpec(3, 1.0), 1) == pytest.approx({1: 1.0})


def test_without_a_trajectory_it_is_the_end():
    assert points(None, 7) == {7: 1.0}
