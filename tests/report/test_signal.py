"""What is said of windows that growth dominates, and of the way that was chosen there."""

from metatune.report.signal import chosen, dominated, ways

ORIGIN = {
    "before": 20,
    "steepest": [0, 16],
    "per_step": 1.25,
    "warmup": 10,
    "eps_root": 0.0,
    "rate": 1e-3,
}


def window(tunable, number, **further):
    return {"tunable": tunable, "window": number, **further}


MEASURED = {
    "trainings": 4,
    "hypergradients": 12,
    "outer_steps": 20,
    "times": 1.84,
    "carried": [window("learning_rates", 0), window("learning_rates", 1)],
    "differences": [window("mixture", 0)],
    "windows": [
        window("learning_rates", 0, dominated=True, sure=True),
        window("learning_rates", 1, dominated=True, sure=True),
        window("mixture", 0, dominated=True, sure=False),
        window("mixture", 1, dominated=False, sure=True),
    ],
}


def test_a_choice_is_said_with_why_and_what_it_costs():
    found = {"way": "damped", "trainings": 2, "measured": MEASURED}
    said = chosen(3, found)
    assert said == (
        "point 3: signal: an adjoint capped at its norm at the end, 2 trainings for each "
        "hypergradient: of 3 windows that growth dominates 3 can be judged by differences of 4 "
        "trainings, which tell the slope of 2; this hypergradient is off by less than half of it "
        "in learning_rates windows 1, 2. By differences go mixture window 1. The 20 "
        "outer steps of this horizon take up to 1.8 times their plain hypergradients, this "
        "measurement included (outer.signal.cost)"
    )
    assert ways({"search": {"chosen": [{"step": 3, **found}]}}) == [said]
    assert ways({"search": {}}) == ways({}) == []
    none = {"way": "exact", "trainings": 1, "measured": MEASURED | {"carried": []}}
    said = chosen(0, none)
    assert said.startswith("point 0: signal: differences where growth dominates, the exact ")
    assert "2; no hypergradient that can be paid is off by less than half of it. By" in said


def test_what_is_done_where_growth_dominates_is_said_with_why_nothing_was_chosen():
    slope = {"growth": 30.0, "measured": True, "trainings": 1, "errors": None, "kept": 1.0}
    told = [window("learning_rates", 0, weight=0.1, **slope)]
    said = dominated(2, told, ORIGIN, 1.0, "9 outer steps are left")
    assert (
        "There, differences of whole trainings are followed instead; no other way was looked for, "
        "as 9 outer steps are left. A longer" in said
    )
    carried = window("mixture", 1, weight=1.0, **slope)
    said = dominated(2, [*told, carried], ORIGIN, 1.0)
    assert (
        "In learning_rates window 1, differences of whole trainings are followed instead. A" in said
    )
    said = dominated(2, [carried], ORIGIN, 1.0)
    assert (
        "There, the hypergradient is still followed, as it was measured to tell the slope" in said
    )
