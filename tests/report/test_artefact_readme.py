import re
from dataclasses import replace

import numpy as np
import pytest

from metatune.artefact import (
    Artefact,
    ClassWeights,
    LearningRates,
    LossWeights,
    Mixture,
    Multipliers,
    Optimizer,
)
from metatune.artefact.document import curves as curves_of
from metatune.artefact.exporters import EXPORTERS
from metatune.artefact.sections.rates import base_curve
from metatune.report.artefact_readme import (
    readme,
    verdict,
)
from metatune.report.usage import worth_using

STEPS = 7
BASE = np.array([0.5, 1.0, 0.8, 0.6, 0.4, 0.3, 0.2])


def measured(difference: float, error: float | None, seeds: int = 5) -> dict:
    before = [2.5 + 0.01 * seed for seed in range(seeds)]
    after = [loss + difference for loss in before]
    return {
        "status": "complete",
        "unit": "nats per token",
        "objective_before": float(np.mean(before)),
        "objective_after": float(np.mean(after)),
        "difference": difference,
        "standard_error": error,
        "held_out_seeds": list(range(seeds)),
        "before": before,
        "after": after,
        "best_outer_step": 4,
        "outer_steps": 9,
    }


UNFINISHED = measured(0.0, None, 1) | {
    "status": "unfinished",
    "objective_before": None,
    "objective_after": None,
    "difference": None,
    "held_out_seeds": [],
    "before": [],
    "after": [],
}


def tuned(result: dict) -> Artefact:
    """Two groups and an untuned parameter; three windows of 7 steps: 0-2, 3-4, 5-6."""
    window = np.array([0, 0, 0, 1, 1, 2, 2])
    factors = {"attention": (0.5, 2.0, 4.0), "a|b": (1.0, 3.0, 1.5)}
    knots = (0.0, 1 / 3, 2 / 3)
    return Artefact(
        STEPS,
        3584,
        LearningRates(
            tuple(step / STEPS for step in range(STEPS)),
            "constant",
            {
                "q.weight": BASE * np.array(factors["attention"])[window],
                "k.weight": BASE * np.array(factors["attention"])[window],
                "mlp.weight": BASE * np.array(factors["a|b"])[window],
                "norm.weight": BASE,
            },
            Multipliers(
                knots, factors, {"attention": ("q.weight", "k.weight"), "a|b": ("mlp.weight",)}
            ),
        ),
        Mixture((0.0, 3 / 7), "constant", ("code", "prose"), np.array([[0.5, 0.5], [0.9, 0.1]])),
        None,
        Optimizer({"kind": "adamw"}, ()),
        {"metatune": "0.1.0", "recipe_sha256": "0123456789abcdef" * 4, "packages": {"jax": "1.2"}},
        result,
    )


@pytest.mark.parametrize(
    ("result", "words", "useful"),
    [
        (
            measured(-0.085, 0.004),  # 2.776 standard errors are 0.011
            "better than the default by 0.085 nats/token (95 % interval of 5 pairs 0.074 to 0.096)",
            True,
        ),
        (
            measured(-0.0123, 0.0005),
            "better than the default by 0.0123 nats/token (95 % interval of 5 pairs 0.0109 to "
            "0.0137)",
            True,
        ),
        (
            measured(0.02, 0.004),
            "worse than the default by 0.020 nats/token (95 % interval of 5 pairs 0.009 to 0.031): "
            "keep your defaults",
            False,
        ),
        (
            measured(-0.008, 0.004),
            "no difference beyond noise: keep your defaults (-0.008 nats/token, 95 % interval of 5 "
            "pairs -0.019 to +0.003)",
            False,
        ),
        (
            measured(0.001, 0.004),
            "no difference beyond noise: keep your defaults (+0.001 nats/token, 95 % interval of 5 "
            "pairs -0.010 to +0.012)",
            False,
        ),
        (
            # The best of all outer steps was the default itself.
            measured(0.0, 0.0),
            "no difference beyond noise: keep your defaults (no change)",
            False,
        ),
        (
            measured(-0.085, None, 1),
            "better by 0.085 nats/token in 1 pair of trainings, too few to tell: measure at least "
            "5 seeds (outer.test.seeds)",
            False,
        ),
        (
            # However far from zero: of two pairs nobody knows the spread.
            measured(-0.0747, 0.001, 2),
            "better by 0.075 nats/token in 2 pairs of trainings, too few to tell: measure at least "
            "5 seeds (outer.test.seeds)",
            False,
        ),
        (
            UNFINISHED,
            "unfinished after 9 outer steps: nothing is measured yet, keep your defaults until "
            "it is",
            False,
        ),
    ],
)
def test_verdict_in_words(result, words, useful):
    assert verdict(result) == words
    assert worth_using(result) is useful


@pytest.mark.parametrize(("difference", "useful"), [(-0.0278, True), (-0.0277, False)])
def test_what_lies_within_students_interval_is_noise(difference, useful):
    """Its half is 2.776 standard errors; two would tell more than was measured."""
    assert worth_using(measured(difference, 0.01)) is useful
    assert verdict(measured(difference, 0.01)).startswith("better than") is useful


def test_curves_of_the_groups_and_of_the_base():
    artefact = tuned(measured(-0.085, 0.004))
    curves = curves_of(artefact, range(STEPS))["learning_rates"]
    assert list(curves) == ["attention", "a|b"]
    np.testing.assert_array_equal(curves["attention"], [0.25, 0.5, 0.4, 1.2, 0.8, 1.2, 0.8])
    base = base_curve(artefact.learning_rates, range(STEPS), STEPS)
    np.testing.assert_array_equal(base, BASE)
    shares = curves_of(artefact, [0, 2, 3, 6])["mixture"]
    np.testing.assert_allclose(shares["code"], [0.5, 0.5, 0.9, 0.9], rtol=1e-15)
    assert list(curves_of(artefact, [0])) == ["learning_rates", "mixture"]


def test_curves_where_no_rates_were_tuned():
    artefact = tuned(measured(-0.085, 0.004))
    untuned = LearningRates(artefact.learning_rates.knots, "constant", {"q.weight": BASE})
    curves = curves_of(replace(artefact, learning_rates=untuned), range(STEPS))["learning_rates"]
    assert list(curves) == ["base"]
    np.testing.assert_array_equal(curves["base"], BASE)


def test_readme_of_a_gain():
    text = readme(tuned(measured(-0.085, 0.004)))
    assert "**Result: better than the default by 0.085 nats/token (95 % interval of 5 " in text
    assert "- learning rates: 2 groups of parameters, a multiplier of the base schedule" in text
    assert "- mixture: code, prose; 2 stretches of training" in text
    assert "- horizon: 7 steps, 3,584 tokens" in text
    assert "| 1 | 2.5100 | 2.4250 | -0.0850 |" in text
    assert "| **mean** | 2.5200 | 2.4350 | -0.0850 |" in text
    assert "| attention | 0.500 | 2.000 | 4.000 |" in text
    assert "| a\\|b | 1.000 | 3.000 | 1.500 |" in text
    assert "| prose | 0.500 | 0.100 |" in text
    assert "- recipe: 0123456789ab\n- packages: jax 1.2" in text
    assert "keep your defaults" not in text
    targets = re.findall(r"^metatune export \. --to (\S+) +--out tuned-(\S+)", text, re.M)
    whole = ["json", "csv", "optax", "torch", "hf-trainer", "trl", "mosaic-streaming"]
    whole += ["torchtitan", "olmo-core", "levanter", "litdata", "grain"]
    assert "--out tuned-levanter --sequences-per-step N" in text
    assert targets == [(name, name) for name in whole]
    assert "`metatune export --list` prints" in text


@pytest.mark.parametrize("result", [measured(-0.001, 0.004), measured(0.1, 0.004), UNFINISHED])
def test_readme_says_when_not_to_use_it(result):
    usage = readme(tuned(result)).split("## How to use it")[1]
    assert usage.strip().startswith(
        "The schedules were not measured to be better than the defaults: keep your defaults."
    )


def test_readme_of_an_unfinished_run():
    text = readme(tuned(UNFINISHED))
    assert (
        "What is tuned here is point 4 of 9, the best in validation: the meta-parameters after so"
        in text
    )
    assert "The run isn't complete, go on with" in text
    assert "| seed |" not in text


def test_tables_have_as_many_cells_in_every_row():
    for table in re.findall(r"(?:^\|.*\n)+", readme(tuned(measured(-0.085, 0.004))), re.M):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_loss_weights_are_told_of():
    weights = LossWeights((0.0,), "constant", ("code", "prose"), np.array([[1.5, 0.5]]))
    text = readme(replace(tuned(measured(-0.1, 0.01)), mixture=None, loss_weights=weights))
    assert "- loss weights: code, prose; 1 stretch of training" in text
    assert "| code | 1.500 |" in text
    assert "mixture" not in text


def test_weights_of_classes_are_told_of():
    shares, weights = np.array([0.75, 0.25]), np.array([[0.5, 2.5]])
    classes = ClassWeights((0.0,), "constant", ("prompt", "completion"), shares, weights)
    artefact = replace(tuned(measured(-0.1, 0.01)), loss_weights=classes)
    text = readme(artefact)
    assert "- loss weights: prompt, completion; 1 stretch of training" in text
    assert "| completion | 2.500 |" in text
    curves = curves_of(artefact, [0, 6])["loss_weights"]
    assert {name: curve.tolist() for name, curve in curves.items()} == {
        "prompt": [0.5, 0.5],
        "completion": [2.5, 2.5],
    }


def test_a_population_is_told_of_with_how_clear_its_hypergradients_were():
    signal = {"mixture": {"median": 1.234, "above_2": 0.2}, "loss_weights": {"median": None}}
    found = {"population": {"members": 4, "signal": signal}}
    page = readme(tuned(measured(-0.3, 0.01) | found))
    assert (
        "Each hypergradient was the mean over 4 trainings. Median signal to noise, in the mean "
        "over outer steps: mixture 1.2.\n"
    ) in page
    assert "Each hypergradient" not in readme(tuned(measured(-0.3, 0.01)))


def test_the_word_of_a_verdict_decides_whatever_was_measured():
    gain, none = measured(-0.085, 0.004), measured(-0.001, 0.004)
    verdicts = {
        word: {
            "word": word,
            "sentence": f"{word}; so it is",
            "rival": rival,
            "rivals": [{"name": "tpe", "words": "rate x2", "losses": [], "behind_tuned": behind}],
            "refused": [],
            "seeds": 5,
            "budget": 9,
        }
        for behind in ({"mean": 0.1},)
        for word, rival in (
            ("use it", None),
            ("use the simple one", None),
            ("a plain change does as well", "tpe"),
            ("keep your defaults", None),
            ("cannot tell", None),
        )
    }

    def told(word: str, result: dict) -> str:
        text = readme(replace(tuned(result), verdict=verdicts[word]))
        assert f"**Verdict: {word}; so it is.**" in text
        return text

    usage = {word: told(word, gain).split("## How to use it\n\n")[1] for word in verdicts}
    assert usage["use it"].startswith("In this folder:\n")
    assert "metatune export . --to json --out tuned-json\n" in usage["use it"]
    simple = usage["use the simple one"]
    assert simple.startswith(
        "The verdict is to use the simple schedules, those of `artefact-simple`"
    )
    assert "metatune export ../artefact-simple --to json --out tuned-json\n" in simple
    assert "metatune export . " not in simple
    assert usage["a plain change does as well"].startswith(
        "The verdict is that a plain change does as well: tpe (rate x2). The commands are for who "
        "wants the schedules nevertheless:"
    )
    for word in ("keep your defaults", "cannot tell"):
        assert usage[word].startswith(
            f"The verdict: {word}; so it is. To look into the schedules nevertheless:"
        )
    # Of no gain in the run's own few pairs, which the contest's seeds have settled.
    assert "keep your defaults" not in told("use it", none)


def test_a_target_that_counts_sequences_is_told_with_their_number():
    def commands(artefact: Artefact) -> str:
        return readme(artefact).split("## How to use it")[1].split("## Knots")[0]

    mixed = replace(tuned(measured(-0.085, 0.004)), learning_rates=None)
    text = commands(mixed)
    assert "--to levanter --out tuned-levanter --sequences-per-step N\n" in text
    assert text.count("sequences-per-step N") == 1
    assert "`N` after `--sequences-per-step` is the sequences of an update of your train" in text
    still = Mixture((0.0,), "constant", ("code", "prose"), np.array([[0.5, 0.5]]))
    text = commands(replace(mixed, mixture=still))
    assert "--to levanter --out tuned-levanter\n" in text and "sequences" not in text


def test_a_target_that_does_not_take_the_optimizer_is_not_named():
    text = readme(
        replace(tuned(measured(-0.085, 0.004)), optimizer=Optimizer({"kind": "lion"}, ()))
    )
    named = re.findall(r"^metatune export \. --to (\S+)", text, re.M)
    taking = [name for name, each in EXPORTERS.items() if "lion" in each.optimizers]
    assert named and set(named) <= set(taking)
