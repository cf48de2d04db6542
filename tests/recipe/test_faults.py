"""Faults of a recipe as errors."""

import pickle

from metatune.recipe.faults import Fault, RecipeError


def test_an_error_passes_from_one_process_to_another_with_its_faults():
    fault = Fault("inner.steps", 0, "must be at least 1", "raise it")
    error = RecipeError("mine.yaml", [fault])
    passed = pickle.loads(pickle.dumps(error))
    assert str(passed) == str(error) and "inner.steps = 0" in str(error)
    assert (passed.source, passed.faults) == ("mine.yaml", (fault,))
