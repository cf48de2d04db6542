"""What is read of a result is what it says it is, or named."""

import pytest

from metatune.artefact.result_checks import MEASURED, faults

COMPLETE = {
    "status": "complete",
    "unit": "nats per byte",
    "best_outer_step": 3,
    "outer_steps": 4,
    "objective_before": 2.0,
    "objective_after": 1.5,
    "difference": -0.5,
    "standard_error": 0.1,
    "held_out_seeds": [0, 1],
    "before": [2.0, 2.0],
    "after": [1.5, 1.5],
}
SEARCH = {
    "ended": "steps",
    "held_out": {"points": [2, 6], "per_step": -0.02, "standard_error": None},
    "moved": {"learning_rates": 0.1},
    "more": "outer.steps=12",
    "jumps": [],
}


def test_sound_ones_have_no_faults():
    assert faults(COMPLETE, "") == []
    assert faults({**COMPLETE, "standard_error": None, "note": "whatever"}, "") == []
    assert faults({"status": "unfinished"}, "") == []
    unmeasured = dict.fromkeys(("objective_before", "objective_after", "difference"))
    lists = {"held_out_seeds": [], "before": [], "after": []}
    assert faults({**COMPLETE, **unmeasured, **lists, "status": "interrupted"}, "") == []
    assert faults({"objective_before": 1.0}, "") == []  # of an artefact that was made by hand
    assert faults("no object", "") == []
    assert faults({**COMPLETE, "search": SEARCH}, "") == []


@pytest.mark.parametrize("key", MEASURED)
def test_what_a_complete_one_lacks_is_named(key):
    found = [
        str(fault) for fault in faults({k: v for k, v in COMPLETE.items() if k != key}, "cure")
    ]
    assert f"result.{key}: this key must be there; cure" in found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"difference": None}, "result.difference = None: must be a finite number"),
        ({"objective_after": "1"}, "result.objective_after = '1': must be a number, or null"),
        ({"unit": None}, "result.unit = None: must be a string"),
        ({"difference": True}, "result.difference = True: must be a number"),
        ({"outer_steps": "4"}, "result.outer_steps = '4': must be a whole number"),
        ({"after": [1.5]}, "must have as many seeds as losses before and after"),
        ({"before": [2.0, "x"]}, "result.before[1] = 'x': must be a finite number"),
        ({"before": 2.0}, "result.before = 2.0: must be a list of numbers"),
        ({"search": []}, "result.search = []: must be an object"),
        ({"search": {}}, "result.search.jumps: this key must be there"),
        ({"search": {**SEARCH, "held_out": 3}}, "result.search.held_out = 3: must be an object"),
        ({"search": {**SEARCH, "moved": {"mixture": "x"}}}, "moved.mixture = 'x': must be a num"),
        ({"search": {**SEARCH, "jumps": [3]}}, "result.search.jumps[0] = 3: must be an object"),
        ({"search": {**SEARCH, "jumps": [{}]}}, "jumps[0].norm: this key must be there"),
    ],
)
def test_values_of_other_types_are_named(change, said):
    assert any(said in str(fault) for fault in faults(COMPLETE | change, ""))
