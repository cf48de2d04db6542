"""The machine that numbers were computed on, and whether another is of its type."""

import json

import jax

from metatune.fit.process import machine as machines
from metatune.fit.process.machine import differences, machine, repeats_itself


def test_a_machine_is_of_its_own_type():
    here = machine()
    assert differences(json.loads(json.dumps(here)), machine()) == []
    assert here["backend"] == "cpu" and here["packages"]["jax"] == jax.__version__
    assert here["threads"] >= 1


def test_each_difference_is_named(monkeypatch):
    here = machine()
    monkeypatch.setenv("XLA_FLAGS", "--b --a")
    monkeypatch.setattr(machines, "_cpu", lambda: {"model name": "Abacus", "flags": "beads"})
    there = machine()
    there["packages"] = {**here["packages"], "jax": "0.0"}
    said = differences(here, there)
    assert [line.split(":")[0] for line in said] == [
        "cpu",
        "cpu_features_sha256",
        "xla_flags",
        "jax",
    ]
    assert said[0].endswith("recorded, 'Abacus' here")
    assert "'--a --b' here" in said[2]


def test_a_gpu_repeats_itself_only_when_told_to():
    assert repeats_itself({"backend": "cpu", "xla_flags": ""})
    assert not repeats_itself({"backend": "gpu", "xla_flags": "--xla_other=true"})
    assert repeats_itself({"backend": "gpu", "xla_flags": "--xla_gpu_deterministic_ops=true"})
