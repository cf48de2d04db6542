import re

import numpy as np
import pytest

from metatune.artefact import ArtefactError
from metatune.artefact.curves import value_at


def test_each_step_of_the_horizon_takes_its_own_knot():
    for total in range(1, 501):
        knots, values = tuple(t / total for t in range(total)), np.arange(total)
        assert [value_at(knots, values, "constant", t, total) for t in range(total)] == list(
            range(total)
        )


def test_knots_off_by_a_rounding_take_their_step_too():
    for total in (3, 49, 93, 500):
        late = np.nextafter(np.arange(total) / total, 1.0).tolist()
        values = np.arange(total)
        assert all(value_at(late, values, "constant", t, total) == t for t in range(total))


def test_a_schedule_stretches_over_a_longer_training():
    knots, values = (0.0, 0.5), np.array([1.0, 2.0])
    assert [value_at(knots, values, "constant", t, 6) for t in range(6)] == [1, 1, 1, 2, 2, 2]
    # 0.5 of 5 updates is in the middle of update 2: the knot holds from the next on.
    assert [value_at(knots, values, "constant", t, 5) for t in range(5)] == [1, 1, 1, 2, 2]


def test_linear_is_on_the_line_and_stays_after_the_last_knot():
    knots, values = (0.0, 0.5), np.array([1.0, 2.0])
    at = [float(value_at(knots, values, "linear", t, 4)) for t in range(6)]
    assert at == [1.0, 1.5, 2.0, 2.0, 2.0, 2.0]


def test_linear_passes_through_every_knot():
    for total in (7, 49, 93):
        knots, values = tuple(t / total for t in range(total)), np.arange(total) * 1.0
        at = [float(value_at(knots, values, "linear", t, total)) for t in range(total)]
        np.testing.assert_allclose(at, values, rtol=1e-12)


def test_domains_by_name(make):
    artefact = make()
    row = artefact.mixture.weights[1]
    found = artefact.mixture_at(5, 20)
    assert list(found) == ["code", "drama", "é"]
    np.testing.assert_allclose(list(found.values()), row, rtol=1e-15)
    assert abs(sum(found.values()) - 1) < 1e-12
    middle = artefact.loss_weights.weights.mean(axis=0)
    np.testing.assert_allclose(list(artefact.loss_weights_at(5, 20).values()), middle, rtol=1e-12)


def test_rate_by_name(make):
    artefact = make()
    for step in range(20):
        expected = artefact.learning_rates.parameters["b.weight"][step]
        assert artefact.learning_rate("b.weight", step, 20) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda a: a.learning_rate("a.weigth", 0, 20),
            "artefact: name = 'a.weigth': not one of the 3 parameters; "
            "the nearest are a.weight, b.weight",
        ),
        (
            lambda a: a.learning_rate("zzz", 0, 20),
            "artefact: name = 'zzz': not one of the 3 parameters; none has a similar name",
        ),
        (
            lambda a: a.learning_rate("a.weight", -1, 20),
            "artefact: step = -1: steps count from 0, the first update; give 0 or above",
        ),
        (
            lambda a: a.learning_rate("a.weight", 0, 0),
            "artefact: total = 0: a training has at least one update; give 1 or above",
        ),
        (
            lambda a: a.mixture_at(0, 20),
            "artefact: mixture = None: the artefact holds none; "
            "tune it: `tune: {mixture: ...}` in the recipe",
        ),
        (
            lambda a: a.loss_weights_at(0, 20),
            "artefact: loss_weights = None: the artefact holds none; "
            "tune it: `tune: {loss_weights: ...}` in the recipe",
        ),
    ],
)
def test_errors_say_what_to_do(make, call, message):
    with pytest.raises(ArtefactError, match=f"^{re.escape(message)}"):
        call(make(mixture=None, loss_weights=None))


def test_several_faults_stand_on_lines_of_their_own():
    assert str(ArtefactError("here", ["one", "two"])) == "here: 2 faults\n  one\n  two"
