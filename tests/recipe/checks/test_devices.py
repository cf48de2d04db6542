"""Rules on the devices that a training lies on."""

import pytest

from metatune.recipe import schema
from metatune.recipe.checks import check

ADAM = schema.AdamWSpec(learning_rate=1e-3)
DATA = schema.DataSpec(
    domains={"code": schema.SourceSpec(shipped="code_stdlib")},
    target={"code": 1.0},
    sequence_length=8,
    batch_size=24,
)
INNER = schema.InnerSpec(optimizer=ADAM, steps=4)
OUTER = schema.OuterSpec(steps=1)


def said(**sections):
    return [
        str(fault) for fault in check({"data": DATA, "inner": INNER, "outer": OUTER, **sections})
    ]


def mesh(**axes):
    whole = {"data": 1, "fsdp": 1, "tensor": 1, "members": 1} | axes
    return f"devices = {whole!r}: cuts a batch into data x fsdp = "


def test_what_divides_all_batches_is_taken():
    assert said(devices=schema.DevicesSpec(data=4, fsdp=2, tensor=16)) == []
    assert said(devices="auto") == []


@pytest.mark.parametrize(
    ("inner", "path", "size"),
    [
        (INNER, "data.batch_size", 24),
        (schema.InnerSpec(ADAM, 4, micro_batch=12), "inner.micro_batch", 12),
    ],
)
def test_every_device_has_as_many_sequences_of_a_batch(inner, path, size):
    assert said(devices=schema.DevicesSpec(data=4, fsdp=4), inner=inner) == [
        mesh(data=4, fsdp=4) + f"16 parts, which don't divide {path}, {size}; change one of the two"
    ]


@pytest.mark.parametrize(
    ("outer", "path", "size"),
    [
        ({"objective": schema.ObjectiveSpec(micro_batch=12)}, "outer.objective.micro_batch", 12),
        ({"test": schema.FinalTestSpec(sequences=4)}, "outer.test.sequences", 4),
        ({"validation": schema.ValidationSpec(sequences=4)}, "outer.validation.sequences", 4),
        ({"objective": schema.ObjectiveSpec(sequences=4)}, "outer.objective.sequences", 4),
    ],
)
def test_every_device_has_as_many_held_out_sequences(outer, path, size):
    found = said(devices=schema.DevicesSpec(data=8), outer=schema.OuterSpec(steps=1, **outer))
    assert found == [
        mesh(data=8) + f"8 parts, which don't divide {path}, {size}; change one of the two"
    ]


FOUR = schema.PopulationSpec(members=4)
FORWARD = schema.ForwardGradientSpec(directions=6, chunk=4)


@pytest.mark.parametrize(
    ("members", "outer", "problems"),
    [
        (2, {"population": FOUR}, []),
        (3, {"population": FOUR}, ["doesn't divide outer.population.members, 4"]),
        (2, {"estimator": FORWARD}, []),
        (
            4,
            {"estimator": FORWARD},
            ["doesn't divide outer.estimator.directions, 6"],
        ),
        (3, {"estimator": schema.ForwardSpec()}, []),
        (
            3,
            {"estimator": schema.ForwardSpec(chunk=4)},
            ["doesn't divide outer.estimator.chunk, 4"],
        ),
        (
            2,
            {
                "steps": None,
                "phases": (
                    schema.PhaseSpec(steps=1, estimator=schema.MixFlowSpec()),
                    schema.PhaseSpec(steps=1, estimator=FORWARD),
                ),
            },
            [
                "cuts directions or members, and the estimator mixflow of outer.phases.0.estimator "
                "has none in one program"
            ],
        ),
        (
            2,
            {"population": schema.PopulationSpec(members=4, vmap=False)},
            [
                "cuts directions or members, and the estimator mixflow of outer.estimator has none "
                "in one program"
            ],
        ),
        (1, {}, []),
    ],
)
def test_members_are_cut_evenly_where_there_are_any(members, outer, problems):
    found = said(
        devices=schema.DevicesSpec(members=members), outer=schema.OuterSpec(**{"steps": 1, **outer})
    )
    assert [each.partition("; ")[0] for each in found] == [
        f"devices.members = {members}: {problem}" for problem in problems
    ]


def test_an_external_trainer_has_devices_of_its_own():
    found = said(devices=schema.DevicesSpec(data=2), trainer=schema.TrainerSpec("train"))
    (fault,) = [each for each in found if each.startswith("devices")]
    assert fault.endswith("has no effect on what trainer.command trains; leave it out")
