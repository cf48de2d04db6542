from copy import deepcopy

import pytest

from metatune.recipe import overrides


def test_values_are_yaml_and_land_where_the_path_says(tree):
    before = deepcopy(tree)
    changed, faults = overrides.apply(
        tree,
        [
            "inner.optimizer.learning_rate=3e-4",
            "tune.mixture.windows=2",
            "data.domains={a: {path: x=y.txt}}",
            "inner.steps=5",
            "inner.steps=6",
            "outer.patience=",
        ],
    )
    assert faults == ()
    assert changed["inner"] == {"optimizer": {"kind": "adamw", "learning_rate": 3e-4}, "steps": 6}
    assert changed["tune"] == {"learning_rates": {"windows": 2}, "mixture": {"windows": 2}}
    assert changed["data"]["domains"] == {"a": {"path": "x=y.txt"}}
    assert changed["outer"] == {"steps": 3, "patience": None}
    assert tree == before


def test_an_empty_section_is_filled(tree):
    changed, faults = overrides.apply({"tune": None}, ["tune.mixture.floor=0.1"])
    assert (changed, faults) == ({"tune": {"mixture": {"floor": 0.1}}}, ())


def test_what_is_left_open_is_said_field_by_field():
    changed, faults = overrides.apply({"devices": "auto"}, ["devices.data=4", "devices.fsdp=2"])
    assert (changed, faults) == ({"devices": {"data": 4, "fsdp": 2}}, ())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "override = 'seed': not of the form KEY.PATH=VALUE; write KEY.PATH=VALUE, e.g. "),
        ("=3", "override = '=3': not of the form"),
        ("inner..steps=3", "override = 'inner..steps=3': not of the form"),
        ("seed=[1", "seed = '[1': the override's value is not valid YAML at line 1, column 3"),
        ("tune={a: 1, a: 2}", "tune = '{a: 1, a: 2}': the override's value: a appears twice"),
        (
            "inner.steps.many=3",
            "inner.steps.many = 3: the override goes through inner.steps, which is no section "
            "but 20; override the whole of it: inner.steps=VALUE",
        ),
    ],
)
def test_malformed_ones_are_faults_and_change_nothing(tree, override, said):
    changed, (fault,) = overrides.apply(tree, [override])
    assert str(fault).startswith(said)
    assert changed == tree


def test_all_malformed_ones_are_reported(tree):
    _, faults = overrides.apply(tree, ["seed", "seed=1", "steps"])
    assert [fault.value for fault in faults] == ["seed", "steps"]
