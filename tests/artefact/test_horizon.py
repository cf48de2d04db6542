import dataclasses
from typing import Any

import numpy as np
import pytest

from metatune.artefact import ArtefactError, LearningRates, Mixture, Multipliers, load
from metatune.artefact.exporters import export
from metatune.artefact.horizon import base_rates, carried, distance, warmup_steps

STEPS, WARMUP = 20, 4
NAMES = ("a.weight", "b.weight")


def base(t):
    """A warmup of four updates, then a cosine."""
    after = 0.5 * (1 + np.cos(np.pi * (t - WARMUP) / (STEPS - WARMUP)))
    return np.where(t < WARMUP, (t + 1) / (WARMUP + 1), after)


@pytest.fixture
def artefact(make):
    t = np.arange(STEPS)
    factors = {"a": (0.3, 1.7), "b": (2.0, 0.1)}
    rates = {
        f"{group}.weight": 0.01 * base(t) * np.where(t < 10, *values)
        for group, values in factors.items()
    }
    return make(
        NAMES,
        STEPS,
        learning_rates=LearningRates(
            tuple(t / STEPS for t in range(STEPS)),
            "constant",
            rates,
            Multipliers((0.0, 0.5), factors, {group: (f"{group}.weight",) for group in factors}),
        ),
    )


def test_the_base_schedule_and_its_warmup_are_found_again(artefact):
    np.testing.assert_allclose(base_rates(artefact), 0.01 * base(np.arange(STEPS)), rtol=1e-12)
    assert warmup_steps(artefact) == WARMUP


def test_a_constant_schedule_has_no_warmup(make):
    curve = np.full(STEPS, 0.1)
    rates = LearningRates(tuple(t / STEPS for t in range(STEPS)), "constant", {"a.weight": curve})
    constant = make(("a.weight",), STEPS, learning_rates=rates)
    assert warmup_steps(constant) == 0
    assert carried(constant, 1000, "steps") is constant


@pytest.mark.parametrize("steps", [10, 20, 33, 1000])
def test_a_warmup_in_steps_keeps_its_updates(artefact, steps):
    moved = carried(artefact, steps, "steps")
    for name in NAMES:
        for step in range(WARMUP + 1):
            assert moved.learning_rate(name, step, steps) == artefact.learning_rate(
                name, step, STEPS
            )
        # The rest of the tuned training takes the rest of the new one.
        for step in range(WARMUP, steps):
            then = WARMUP + (step - WARMUP) * (STEPS - WARMUP) / (steps - WARMUP)
            tuned = artefact.learning_rate(name, int(then + 1e-6), STEPS)
            assert moved.learning_rate(name, step, steps) == tuned
    assert moved.mixture is artefact.mixture
    np.testing.assert_allclose(base_rates(moved), base_rates(artefact), rtol=1e-12)


def test_a_warmup_in_its_fraction_stretches(artefact):
    assert carried(artefact, 1000, "fraction") is artefact
    assert artefact.learning_rate("a.weight", 199, 1000) < artefact.learning_rate(
        "a.weight", 200, 1000
    )


def test_what_was_carried_is_not_carried_again(artefact, tmp_path):
    export(artefact, "json", tmp_path / "a", steps=40, warmup="steps")
    again = load(tmp_path / "a")
    assert carried(again, 40, "steps") is again
    for warmup in ("steps", "fraction"):
        with pytest.raises(ArtefactError, match="steps = 20: the warmup was kept in steps for a "):
            export(again, "json", tmp_path / "b", warmup=warmup)


def test_a_warmup_that_does_not_fit(artefact):
    with pytest.raises(ArtefactError) as caught:
        carried(artefact, 4, "steps")
    assert str(caught.value) == (
        "export: steps = 4: the warmup of 4 updates, kept in steps, doesn't fit; "
        "give more, or `warmup` fraction"
    )
    with pytest.raises(ArtefactError, match=r"warmup = 'step': unknown rule; did you mean steps"):
        carried(artefact, 40, "step")


def test_a_warmup_can_not_be_known_without_a_base(artefact):
    groups = {"a": (0.0, 1.0), "b": (1.0, 0.0)}
    multipliers = Multipliers((0.0, 0.5), groups, artefact.learning_rates.multipliers.members)
    rates = LearningRates((0.0,), "constant", {n: np.ones(1) for n in NAMES}, multipliers)
    without = dataclasses.replace(artefact, learning_rates=rates)
    with pytest.raises(ArtefactError, match="every group has a multiplier of 0 somewhere"):
        base_rates(without)


@pytest.mark.parametrize(
    ("steps", "tokens_per_step", "warned"),
    [(20, 512, False), (80, 512, False), (81, 512, True), (4, 512, True), (20, 4096, True)],
)
def test_far_from_the_tuned_training_is_warned_of(artefact, steps, tokens_per_step, warned):
    warning = distance(artefact, steps, tokens_per_step)
    assert (warning is not None) == warned
    if warning:
        assert f"{steps / 20:.3g} times the updates" in warning
        assert f"{steps * tokens_per_step / 10240:.3g} times the tokens" in warning


def test_an_export_states_its_horizon(artefact, tmp_path):
    done = export(artefact, "torch", tmp_path / "a", steps=1000, warmup="steps")
    text = (tmp_path / "a" / "README.md").read_text()
    assert "total_steps = 1000 " in text
    assert "- exported for 1,000 updates of 512 tokens" in text
    assert "the warmup is kept in steps: right for 1,000 updates alone" in text
    assert done.warning and done.warning in text
    done = export(artefact, "torch", tmp_path / "b", steps=40, tokens_per_step=256)
    text = (tmp_path / "b" / "README.md").read_text()
    assert "the warmup is kept in its fraction of training" in text
    assert done.warning is None and "**warning**" not in text


def test_numbers_are_checked_together(artefact, tmp_path):
    with pytest.raises(ArtefactError) as caught:
        export(artefact, "torch", tmp_path / "a", steps=0, tokens_per_step=-1, sequences_per_step=0)
    assert [str(fault).split(" = ")[0] for fault in caught.value.faults] == [
        "steps",
        "tokens_per_step",
        "sequences_per_step",
    ]
    assert not (tmp_path / "a").exists()
    wrong: Any
    wrong_types: Any = (10**12, 2.5, True, "100")
    for wrong in wrong_types:
        with pytest.raises(ArtefactError, match=f"export: steps = {wrong!r}: must be "):
            export(artefact, "megatron", tmp_path / "a", steps=wrong, lossy=True)


def test_a_mixture_stays_in_fractions(make, tmp_path):
    mixture = Mixture((0.0, 0.5), "constant", ("x", "y"), np.array([[1.0, 0.0], [0.0, 1.0]]))
    moved = carried(make(mixture=mixture), 100, "steps")
    assert moved.mixture_at(49, 100) == {"x": 1.0, "y": 0.0}
    assert moved.mixture_at(50, 100) == {"x": 0.0, "y": 1.0}
