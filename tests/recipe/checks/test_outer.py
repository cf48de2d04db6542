"""Rules of a recipe's search."""

import pytest

from metatune.recipe import reading

TRUNCATED = {"kind": "truncated", "window": 5}


@pytest.mark.parametrize(
    ("outer", "line"),
    [
        (
            {},
            "outer = {}: must have exactly one of steps and phases; write one of them, e.g. "
            "steps: 20",
        ),
        (
            {"steps": 3, "phases": [{"steps": 2}]},
            "outer.steps = 3: outer.phases is given too, each with steps of its own; take out "
            "outer.steps or outer.phases",
        ),
        (
            {"phases": []},
            "outer.phases = []: names no phase; write one or more, or outer.steps",
        ),
        (
            {"phases": [{"steps": 1}, {"optimizer": {"kind": "sign"}}]},
            "outer.phases[1].steps: missing; write a whole number of 1 or above",
        ),
        (
            {"phases": [{"steps": 1, "estimater": {"kind": "forward"}}]},
            "outer.phases[0].estimater = {'kind': 'forward'}: unknown key; did you mean "
            "estimator? (allowed: steps, estimator, unroll, optimizer, reset)",
        ),
        (
            {
                "optimizer": {"kind": "sign"},
                "phases": [{"steps": 1, "optimizer": {"kind": "adam"}}],
            },
            "outer.optimizer = {'kind': 'sign'}: every phase has optimizer of its own; take this "
            "one out, or optimizer out of a phase that is to have it",
        ),
        (
            {"steps": 1, "clip": {"learning_rates": 1.0, "mixture": 1.0}},
            "outer.clip.mixture = 1.0: tune.mixture isn't there; take it out, or tune mixture",
        ),
        (
            {"steps": 1, "clip": {"learning_rate": 1.0}},
            "outer.clip.learning_rate = 1.0: unknown tunable; did you mean learning_rates? "
            "(allowed: learning_rates, mixture, loss_weights, initialisation, learned_update, "
            "rater, averaging, weight_decay, momentum, b1, b2, eps, clip_norm, z_loss, "
            "label_smoothing, multi_token_prediction, router_balance)",
        ),
        (
            {"steps": 1, "clip": {"learning_rates": 0.0}},
            "outer.clip = {'learning_rates': 0.0}: must be a number above 0, or one by name; "
            "leave it out for the default, null",
        ),
        (
            {"steps": 1, "clip": 0},
            "outer.clip = 0.0: must be a number above 0, or one by name; leave it out for the "
            "default, null",
        ),
        (
            {"steps": 1, "ema": 1.0},
            "outer.ema = 1.0: must be a fraction from 0 up to, not including, 1; leave it out for "
            "the default, null",
        ),
        (
            {"steps": 1, "optimizer": {"kind": "sgd", "momentum": -0.1}},
            "outer.optimizer.momentum = -0.1: must be a fraction from 0 up to, not including, 1; "
            "leave it out for the default, 0.9",
        ),
        (
            {"steps": 1, "objective": {"deviation": -1}},
            "outer.objective.deviation = -1.0: must be 0 or above; leave it out for the default, "
            "0.0",
        ),
        (
            {"steps": 1, "objective": {"worst_case": 0.1}},
            "outer.objective.worst_case = 0.1: needs two domains or more with a weight in "
            "data.target; weigh another domain, or leave it out",
        ),
        (
            {"steps": 1, "objective": {"trajectory": {"points": 21}}},
            "outer.objective.trajectory.points = 21: must be at most inner.steps, 20; lower it",
        ),
        (
            {"steps": 1, "objective": {"trajectory": {"points": 1}}},
            "outer.objective.trajectory.points = 1: must be a whole number of 2 or above; there "
            "is no default: choose one",
        ),
        (
            {"steps": 1, "unroll": {"kind": "truncated", "window": 21}},
            "outer.unroll.window = 21: must be at most inner.steps, 20; lower it, or raise "
            "inner.steps",
        ),
        (
            {"phases": [{"steps": 1}, {"steps": 1, "unroll": TRUNCATED | {"window": 21}}]},
            "outer.phases[1].unroll.window = 21: must be at most inner.steps, 20; lower it, or "
            "raise inner.steps",
        ),
        (
            {"steps": 1, "unroll": {"kind": "online", "window": 3, "lifetime": 21}},
            "outer.unroll.lifetime = 21: must be at most inner.steps, 20; lower it, or raise "
            "inner.steps",
        ),
        (
            {"steps": 1, "unroll": {"kind": "online", "window": 6, "lifetime": 5}},
            "outer.unroll.window = 6: must be at most outer.unroll.lifetime, 5; lower it, or raise "
            "outer.unroll.lifetime",
        ),
        (
            {"steps": 1, "unroll": {"kind": "full", "horizons": []}},
            "outer.unroll.horizons = []: names no horizon; write one or more, or leave it out",
        ),
        (
            {"steps": 1, "unroll": {"kind": "full", "horizons": [5, 21]}},
            "outer.unroll.horizons[1] = 21: must be from 1 to inner.steps, 20; change it, or "
            "inner.steps",
        ),
        (
            {"steps": 1, "unroll": {"kind": "full", "horizons": [0, 20]}},
            "outer.unroll.horizons[0] = 0: must be from 1 to inner.steps, 20; change it, or "
            "inner.steps",
        ),
        (
            {"steps": 1, "unroll": {"kind": "full", "horizons": [1, 2]}},
            "outer.unroll.horizons[0] = 1: has no inner step in a window of tune.learning_rates, "
            "of 2; raise it, or lower tune.learning_rates.windows",
        ),
        (
            {"steps": 1, "unroll": {"kind": "full", "fractions": [0.5, 1.2]}},
            "outer.unroll.fractions = (0.5, 1.2): must be one or more fractions above 0, at most "
            "1; leave it out for the default, null",
        ),
        (
            {"steps": 1, "unroll": {"kind": "full", "fractions": [0.5], "horizons": [5]}},
            "outer.unroll.fractions = (0.5,): outer.unroll.horizons is given too; take out one of "
            "them",
        ),
        (
            {"steps": 1, "optimizer": {"kind": "adam", "per_tunable": {"learning_rate": 0.3}}},
            "outer.optimizer.per_tunable.learning_rate = 0.3: unknown tunable; did you mean "
            "learning_rates? (allowed: learning_rates, mixture, loss_weights, initialisation, "
            "learned_update, rater, averaging, weight_decay, momentum, b1, b2, eps, clip_norm, "
            "z_loss, label_smoothing, multi_token_prediction, router_balance)",
        ),
        (
            {
                "phases": [
                    {"steps": 1, "optimizer": {"kind": "sign", "per_tunable": {"mixture": 0.3}}}
                ]
            },
            "outer.phases[0].optimizer.per_tunable.mixture = 0.3: tune.mixture isn't there; take "
            "it out, or tune mixture",
        ),
        (
            {"steps": 1, "optimizer": {"per_tunable": {"learning_rates": -0.1}}},
            "outer.optimizer.per_tunable.learning_rates = -0.1: must be a number above 0; leave "
            "it out for the others'",
        ),
        (
            {"steps": 1, "optimizer": {"kind": "sign", "learning_rate": 0.04}},
            "outer.optimizer.tolerance = 0.05: is above every first step size, 0.04: converged "
            "before it begins; lower it, or write null for never",
        ),
        (
            {"steps": 1, "optimizer": {"kind": "sign", "tolerance": 0}},
            "outer.optimizer.tolerance = 0.0: must be a number above 0; leave it out for the "
            "default, 0.05",
        ),
    ],
)
def test_a_broken_rule_is_one_fault(tree, outer, line):
    tree["outer"] = outer
    _, faults = reading.collect(tree)
    assert [str(fault) for fault in faults] == [line]


@pytest.mark.parametrize(
    "outer",
    [
        {"phases": [{"steps": 1}]},
        # One of the phases has the choice that is said for all.
        {"unroll": TRUNCATED, "phases": [{"steps": 1}, {"steps": 1, "unroll": {"kind": "full"}}]},
        {"steps": 1, "unroll": {"kind": "full", "horizons": [2, 20]}},
        {"steps": 1, "unroll": {"kind": "truncated", "window": 20}},
        {"steps": 1, "optimizer": {"kind": "sign", "learning_rate": 0.05}},
        {"steps": 1, "optimizer": {"kind": "sign", "learning_rate": 0.01, "tolerance": None}},
        {
            "steps": 1,
            "optimizer": {
                "kind": "sign",
                "learning_rate": 0.01,
                "per_tunable": {"learning_rates": 0.3},
            },
        },
    ],
)
def test_the_edge_of_a_rule_is_allowed(tree, outer):
    tree["outer"] = outer
    assert reading.collect(tree)[1] == ()


def test_a_window_of_few_steps_may_be_left_out_by_a_shorter_training(tree):
    """Of 5 steps in 3 windows (0 0 1 1 2), 4 steps are like 0, 1, 2 and 3: none is of window 2."""
    tree["inner"]["steps"] = 5
    tree["tune"]["learning_rates"]["windows"] = 3
    tree["outer"] = {"steps": 1, "unroll": {"kind": "full", "horizons": [3, 4, 5]}}
    _, faults = reading.collect(tree)
    assert [fault.path for fault in faults] == [f"outer.unroll.horizons[{i}]" for i in (0, 1)]


def test_a_worst_case_is_one_of_losses(tree):
    tree["data"]["target"] = {"code": 1, "prose": 1}
    tree["outer"] = {"steps": 1, "objective": {"worst_case": 0.1}}
    assert reading.collect(tree)[1] == ()
    tree["outer"]["objective"]["measure"] = "accuracy"
    tree["outer"]["estimator"] = {"kind": "zeroth_order"}
    assert [str(fault) for fault in reading.collect(tree)[1]] == [
        "outer.objective.worst_case = 0.1: is of losses, but outer.objective.measure is "
        "accuracy; leave one of them out"
    ]


@pytest.mark.parametrize(
    ("outer", "line"),
    [
        ({"steps": 1, "unroll": {"kind": "online", "window": 5}}, None),
        ({"steps": 1}, "outer.estimator.kind = 'persistent_es': {} full{}"),
        (
            {"steps": 1, "unroll": TRUNCATED},
            "outer.estimator.kind = 'persistent_es': {} truncated{}",
        ),
        (
            {
                "phases": [
                    {"steps": 1, "estimator": {"kind": "mixflow"}},
                    {"steps": 1, "estimator": {"kind": "persistent_es"}},
                    {"steps": 1, "unroll": {"kind": "online", "window": 5}},
                ]
            },
            "outer.phases[1].estimator.kind = 'persistent_es': {} full{}",
        ),
    ],
)
def test_what_lives_on_is_of_an_online_unroll(tree, outer, line):
    tree["outer"] = {"estimator": {"kind": "persistent_es"}, **outer}
    because = "lives on from window to window, but the unroll is"
    cure = "; write unroll: {kind: online, window: 50}, or take zeroth_order"
    wanted = [] if line is None else [line.format(because, cure)]
    assert [str(fault) for fault in reading.collect(tree)[1]] == wanted


@pytest.mark.parametrize(
    ("outer", "kind"),
    [
        ({"steps": 1}, "mixflow"),
        (
            {
                "steps": 1,
                "estimator": {"kind": "persistent_es"},
                "unroll": {"kind": "online", "window": 5},
            },
            None,
        ),
        ({"steps": 1, "estimator": {"kind": "zeroth_order"}}, None),
        ({"steps": 1, "estimator": {"kind": "auto"}}, None),
        (
            {
                "estimator": {"kind": "zeroth_order"},
                "phases": [{"steps": 1}, {"steps": 1, "estimator": {"kind": "forward_gradient"}}],
            },
            "forward_gradient",
        ),
    ],
)
def test_accuracy_has_no_derivative(tree, outer, kind):
    tree["outer"] = outer | {"objective": {"measure": "accuracy"}}
    assert [str(fault) for fault in reading.collect(tree)[1]] == (
        [
            f"outer.objective.measure = 'accuracy': has no derivative, which the estimator {kind} "
            "goes by; write outer.estimator: {kind: zeroth_order}, or measure the loss"
        ]
        if kind
        else []
    )


@pytest.mark.parametrize("option", [{"worst_case": 0.1}, {"trajectory": {"points": 2}}])
def test_an_external_trainer_has_an_objective_of_its_own(tree, option):
    tree["data"]["target"] = {"code": 1, "prose": 1}
    tree["trainer"] = {"command": "train"}
    tree["outer"] = {"steps": 1, "objective": option, "estimator": {"kind": "zeroth_order"}}
    (fault,) = reading.collect(tree)[1]
    assert fault.path == f"outer.objective.{next(iter(option))}"
    assert "has no effect on an external trainer" in fault.problem
