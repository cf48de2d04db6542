"""Structures of few numbers, against least squares, all ways to cut, and planted ones."""

import itertools

import numpy as np
import pytest

from metatune.verdict.structure import Structure, best, candidates, clustered, stretched


def structure(product, seed=0):
    generator = np.random.default_rng(seed)
    cluster = np.asarray([0, 1, 2, 0, 1, 0, 2, 2, 2])
    found = Structure(cluster, np.asarray([0, 0, 1, 1, 1]), product)
    return found, generator.normal(size=(5, len(cluster)))


def design(found, windows, parameters):
    """A column for each number, in dummy variables."""
    rows = []
    for window, parameter in itertools.product(range(windows), range(parameters)):
        of_stretch = np.eye(found.stretches)[found.stretch[window]]
        of_cluster = np.eye(found.clusters)[found.cluster[parameter]]
        together = np.concatenate([of_stretch, of_cluster[1:]])
        rows.append(together if found.product else np.outer(of_stretch, of_cluster).ravel())
    return np.asarray(rows)


@pytest.mark.parametrize("product", [True, False])
def test_values_are_those_of_least_squares(product):
    found, logs = structure(product)
    columns = design(found, *logs.shape)
    assert found.numbers == columns.shape[1] == (4 if product else 6)
    solved = np.linalg.lstsq(columns, logs.ravel(), rcond=None)[0]
    spread = found.spread(found.fitted(logs))
    assert spread.ravel() == pytest.approx(columns @ solved)
    assert found.error(logs) == pytest.approx(((logs.ravel() - columns @ solved) ** 2).sum())


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_stretches_are_the_best_of_all_cuts(count):
    rows = np.random.default_rng(count).normal(size=(6, 2)).cumsum(axis=0)

    def left(cuts):
        parts = np.split(rows, cuts)
        return sum(((part - part.mean(axis=0, keepdims=True)) ** 2).sum() for part in parts)

    least = min(left(cuts) for cuts in itertools.combinations(range(1, 6), count - 1))
    found = stretched(rows, count)
    assert left(np.flatnonzero(np.diff(found)) + 1) == pytest.approx(least)
    assert found.tolist() == sorted(found.tolist())
    assert found[-1] == count - 1


def test_clusters_are_of_what_is_alike_the_least_first():
    rows = np.asarray([[5.0], [0.1], [5.1], [-3.0], [0.0]])
    assert clustered(rows, 3).tolist() == [2, 1, 2, 0, 1]
    assert clustered(rows, 1).tolist() == [0] * 5


@pytest.mark.parametrize("product", [True, False])
def test_a_planted_structure_is_found_by_its_number_of_numbers(product):
    planted = Structure(np.asarray([0, 0, 1, 2, 2, 1]), np.asarray([0, 0, 1, 1]), product)
    values = planted.restricted(np.asarray([[0.0, 1.0, 3.0], [1.0, 2.5, 7.0]]))
    logs = planted.spread(values)
    found = best(logs, planted.numbers)
    assert found.error(logs) == pytest.approx(0, abs=1e-20)
    assert found.numbers == planted.numbers
    assert best(logs, planted.numbers - 1).error(logs) > 1e-3


def test_candidates_have_ever_more_numbers_and_leave_ever_less():
    logs = np.random.default_rng(3).normal(size=(4, 10))
    found = candidates(logs, 40)
    numbers = [each.numbers for each in found]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1
    assert numbers[-1] < 40
    errors = [each.error(logs) for each in found]
    assert errors == sorted(errors, reverse=True)
    assert [each.numbers for each in candidates(logs, 3)] == [n for n in numbers if n < 3]


@pytest.mark.parametrize(
    ("clusters", "stretches", "product", "words"),
    [
        (1, 1, False, "one for all parameters"),
        (1, 2, False, "one for all parameters in each of 2 stretches of the training"),
        (2, 1, False, "one for each of 2 clusters of parameters"),
        (
            3,
            2,
            True,
            "one for each of 3 clusters of parameters times one for each of 2 stretches of the "
            "training",
        ),
    ],
)
def test_what_it_is_is_said(clusters, stretches, product, words):
    found = Structure(np.arange(clusters), np.arange(stretches), product)
    assert found.words == words
