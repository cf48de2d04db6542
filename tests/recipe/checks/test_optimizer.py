"""Rules between the inner optimizer and what is tuned."""

import pytest

from metatune.recipe import reading, schema
from metatune.recipe.faults import RecipeError


def recipe(chosen, tune, inner=(), **outer):
    return {
        "model": {"config": {"model_type": "llama"}},
        "data": {
            "domains": {"a": {"shipped": "code_stdlib"}, "b": {"shipped": "bible_web"}},
            "target": {"a": 1.0},
            "sequence_length": 16,
            "batch_size": 4,
        },
        "inner": {"optimizer": {"kind": "adamw", "learning_rate": 1e-3, **chosen}, "steps": 10}
        | dict(inner),
        "tune": tune,
        "outer": {"steps": 1, **outer},
    }


def faults(*args, **outer):
    with pytest.raises(RecipeError) as refused:
        reading.parse(recipe(*args, **outer), "mine.yaml")
    return [str(fault) for fault in refused.value.faults]


def test_every_field_that_an_optimizer_lets_tune_is_one_of_its_own():
    kinds = schema.SingleOptimizerSpec.__args__
    names = set(schema.OptimizerFieldsSpec.__dataclass_fields__)
    assert len(kinds) == 11
    for kind in kinds:
        assert set(kind.TUNABLE) <= names & set(kind.__dataclass_fields__)
        fields = {name: {} for name in kind.TUNABLE}
        values = {"kind": kind.kind, "weight_decay": 0.1, "clip_norm": 1.0}
        reading.parse(recipe(values, {"optimizer": fields}), "mine.yaml")


def test_something_of_the_optimizer_is_tuned():
    assert faults({}, {"optimizer": {}}) == [
        "tune.optimizer = {}: nothing of the optimizer is tuned; write one of weight_decay, "
        "momentum, b1, b2, eps, clip_norm, e.g. `weight_decay: {}`, or take tune.optimizer out"
    ]


@pytest.mark.parametrize(
    ("optimizer", "key", "problem"),
    [
        ({"kind": "adamw"}, "momentum", "inner.optimizer is adamw, which has no such number"),
        ({"kind": "lion"}, "b1", "can't be tuned for lion: its sign has no derivative but zero"),
        ({"kind": "adafactor"}, "eps", "can't be tuned for adafactor: its derivative is next to"),
        ({"kind": "schedule_free_adamw"}, "b1", "can't be tuned for schedule_free_adamw: the aver"),
        ({"weight_decay": 0}, "weight_decay", "inner.optimizer.weight_decay is 0, which no factor"),
        ({"clip_norm": None}, "clip_norm", "inner.optimizer.clip_norm is null, which no factor"),
        ({"b1": 0}, "b1", "inner.optimizer.b1 is 0, which no factor changes"),
    ],
)
def test_only_what_has_an_effect_is_tuned(optimizer, key, problem):
    (fault,) = faults(optimizer, {"optimizer": {key: {}}})
    assert fault.startswith(f"tune.optimizer.{key} = ") and problem in fault


def test_windows_and_groups_are_those_of_any_tunable():
    tune = {"optimizer": {"weight_decay": {"windows": 11, "per": ["("]}, "b1": {"windows": 12}}}
    found = faults({}, tune)
    assert [fault.partition(":")[0] for fault in found] == [
        "tune.optimizer.weight_decay.windows = 11",
        "tune.optimizer.b1.windows = 12",
        "tune.optimizer.weight_decay.per[0] = '('",
    ]


def test_outer_rates_go_by_the_names_of_what_is_tuned():
    tune = {"optimizer": {"b1": {}}}
    adam = {"optimizer": {"kind": "adam", "per_tunable": {"b1": 0.1}}}
    reading.parse(recipe({}, tune, **adam), "mine.yaml")
    adam["optimizer"]["per_tunable"] = {"b2": 0.1, "optimizer": 0.1}
    first, second = faults({}, tune, **adam)
    assert "tune.optimizer.b2 isn't there; take it out, or tune b2" in first
    assert "optimizer" in second and "unknown tunable" in second


@pytest.mark.parametrize("kind", ["adamh", "muonh"])
def test_kept_norms_refuse_adapters(kind):
    (fault,) = faults({"kind": kind}, {"learning_rates": {}}, inner={"lora": {"targets": ["q"]}})
    assert fault.startswith("inner.lora = ")
    assert f"inner.optimizer is {kind}, which keeps norms, and adapters begin with zeros" in fault


def test_lion_hides_what_weighs_the_data():
    (fault,) = faults({"kind": "lion"}, {"mixture": {}})
    assert "has a hypergradient of zero: lion takes the sign of the gradient" in fault
    outer = {"estimator": {"kind": "zeroth_order", "directions": 2}}
    reading.parse(recipe({"kind": "lion"}, {"mixture": {}}, **outer), "mine.yaml")
    reading.parse(recipe({"kind": "lion"}, {"learning_rates": {}}), "mine.yaml")


GROUPS = [
    {"match": "proj", "kind": "muon", "learning_rate": 0.02},
    {"kind": "adamw", "learning_rate": 0.001, "weight_decay": 0},
]


def grouped(groups=GROUPS, tune=(), inner=(), **shared):
    made = recipe({}, {"learning_rates": {}, **dict(tune)}, inner)
    made["inner"]["optimizer"] = {"groups": groups, **shared}
    return made


def test_groups_need_no_kind_and_share_what_no_group_says():
    read = reading.parse(grouped(clip_norm=0.5), "mine.yaml").inner.optimizer
    first, second = GROUPS
    assert read == schema.GroupsSpec(
        (
            schema.MuonGroupSpec(0.02, match="proj"),
            schema.AdamWGroupSpec(0.001, weight_decay=0.0),
        ),
        clip_norm=0.5,
    )
    for key, value in (("schedule", {"kind": "constant"}), ("clip_norm", 1.0)):
        with pytest.raises(RecipeError) as refused:
            reading.parse(grouped([{**first, key: value}, second]), "mine.yaml")
        assert str(refused.value.faults[0]).startswith(f"inner.optimizer.groups[0].{key} = ")
        assert "unknown key" in str(refused.value.faults[0])


@pytest.mark.parametrize(
    ("made", "path", "problem"),
    [
        (
            grouped([{**GROUPS[1], "kind": "schedule_free_adamw"}]),
            "inner.optimizer.groups[0].kind",
            "schedule_free_adamw",
        ),
        (
            grouped(tune={"learned_update": {"step_size": "kept"}}),
            "tune.learned_update",
            "inner.optimizer is groups, of which each steps along directions of its own",
        ),
        (
            grouped(
                [{**GROUPS[0], "kind": "adamh"}, GROUPS[1]], inner={"lora": {"targets": ["proj"]}}
            ),
            "inner.lora",
            "inner.optimizer.groups[0] is adamh, which keeps norms, and adapters begin with zeros",
        ),
    ],
    ids=["schedule-free", "learned update", "adapters"],
)
def test_what_groups_can_t_have_is_refused_by_name(made, path, problem):
    with pytest.raises(RecipeError) as refused:
        reading.parse(made, "mine.yaml")
    (said,) = (str(fault) for fault in refused.value.faults)
    assert said.startswith(path)
    assert problem in said
