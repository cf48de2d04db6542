"""Changes as they are typed, against the shares and rates that inner steps then use."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from recipes import prepared, tiny

from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.verdict.what_if.changes import Change, changed, parsed, quoted

FLOOR = 0.05
THREE = {
    "code": schema.SourceSpec(shipped="code_stdlib"),
    "drama": schema.SourceSpec(shipped="drama_shakespeare"),
    "facts": schema.SourceSpec(shipped="reference_factbook"),
}


def recipe(**mixture):
    rates = schema.LearningRatesSpec(per="layer", windows=3, max_multiplier=8.0)
    return tiny(
        data={"domains": THREE},
        tune={"learning_rates": rates, "mixture": schema.MixtureSpec(2, FLOOR, **mixture)},
    )


@pytest.fixture(scope="module")
def training():
    return prepared(recipe())


@pytest.fixture(scope="module")
def eta(training):
    """Somewhere; logits aren't centred on zero."""
    found = {key: np.asarray(leaf) for key, leaf in training.initial_eta().items()}
    drawing = np.random.default_rng(0)
    return {
        key: jnp.asarray(leaf + drawing.normal(0.3, 0.4, leaf.shape), jnp.float32)
        for key, leaf in found.items()
    }


def shares(training, eta):
    return training.trajectory(eta).mixture


def rates(training, eta):
    return training.trajectory(eta).learning_rates


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("mixture.code[2]=0.6", ("mixture", "code", 1, "=", 0.6)),
        ("mixture.'two words'+=5e-2", ("mixture", "two words", None, "+=", 0.05)),
        ("mixture.code-=0.05", ("mixture", "code", None, "+=", -0.05)),
        ("learning_rates.'lm_head'*=0.5", ("learning_rates", "lm_head", None, "*=", 0.5)),
        (
            "learning_rates.model.layers.0[3]/=2",
            ("learning_rates", "model.layers.0", 2, "*=", 0.5),
        ),
    ],
)
def test_changes_are_read(word, wanted):
    assert parsed([word]) == [Change(word, *wanted)]


@pytest.mark.parametrize(
    "name", ["code", "two words", "ref's x[2]=1", "'", '"', "a'b\"c", "''", "x.y-z_1"]
)
def test_whatever_a_domain_is_called_it_can_be_named(name):
    (found,) = parsed([f"mixture.{quoted(name)}[2]+=0.05"])
    assert (found.name, found.window) == (name, 1)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("mixture.code", "not of the form"),
        ("code=0.6", "not of the form"),
        ("mixture.code=much", "mixture.code = 'much': is no number"),
        ("mixture.code=nan", "must be a finite number"),
        ("learning_rates.all/=0", "must be a finite number"),
        ("learning_rates.all/=1e-320", "must be a finite number"),
    ],
)
def test_what_is_no_change_is_refused_with_the_form(word, said):
    with pytest.raises(RecipeError) as raised:
        parsed([word])
    assert said in str(raised.value)
    assert "mixture.code[2]+=0.05" in str(raised.value)


def test_a_share_is_what_was_said_and_the_others_keep_their_proportion(training, eta):
    before = shares(training, eta)
    after = shares(training, changed(training, eta, parsed(["mixture.code[2]=0.6"])))
    assert after[:3] == pytest.approx(before[:3], abs=1e-6)
    assert after[3:, 0] == pytest.approx(0.6, abs=1e-5)
    above = after[3:, 1:] - FLOOR
    was = before[3:, 1:] - FLOOR
    assert above[:, 0] / above[:, 1] == pytest.approx(was[:, 0] / was[:, 1], rel=1e-4)
    assert after.sum(axis=1) == pytest.approx(1)


def test_several_shares_are_changed_at_once(training, eta):
    before = shares(training, eta)
    words = ["mixture.code=0.3", "mixture.drama[1]+=0.05", "mixture.drama[2]*=1.1"]
    after = shares(training, changed(training, eta, parsed(words)))
    assert after[:, 0] == pytest.approx(0.3, abs=1e-5)
    assert after[:3, 1] == pytest.approx(before[:3, 1] + 0.05, abs=1e-5)
    assert after[3:, 1] == pytest.approx(before[3:, 1] * 1.1, rel=1e-4)
    all_of_them = ["mixture.code=0.5", "mixture.drama=0.3", "mixture.facts=0.2"]
    after = shares(training, changed(training, eta, parsed(all_of_them)))
    assert after == pytest.approx(np.tile([0.5, 0.3, 0.2], (6, 1)), abs=1e-5)


def test_nothing_but_the_shares_moves(training, eta):
    """Of the coordinates, whose common part means nothing, as little as it takes."""
    now = shares(training, eta)[0]
    same = changed(training, eta, parsed([f"mixture.code[1]={now[0]:.12f}"]))
    for key in eta:
        assert np.asarray(same[key]) == pytest.approx(np.asarray(eta[key]), abs=1e-5)


def test_rates_are_multiplied_or_set_by_groups_modules_and_kinds(training, eta):
    before = rates(training, eta)
    own = next(each for each in training.tunables if each.key == "learning_rates")
    for name in ("model.layers.0", "'lm_head'", "head", "embedding"):
        after = rates(training, changed(training, eta, parsed([f"learning_rates.{name}[2]*=1.5"])))
        moved = {each for each in after if after[each] != pytest.approx(before[each])}
        inside = {"head": "lm_head.", "embedding": "model.embed_tokens."}
        part = inside.get(name, f"{name.strip(chr(39))}.")
        assert moved == {each for each in before if each.startswith(part)}
        for each in moved:
            assert after[each][2:4] == pytest.approx(1.5 * before[each][2:4], rel=1e-4)
            assert after[each][[0, 1, 4, 5]] == pytest.approx(before[each][[0, 1, 4, 5]])
    set_to = changed(training, eta, parsed(["learning_rates.all=2", "learning_rates.all[1]*=1.5"]))
    factors = own.multipliers(np.asarray(set_to["learning_rates"]))
    assert factors == pytest.approx(np.asarray([3.0, 2.0, 2.0])[:, None].repeat(4, 1), rel=1e-5)


@pytest.mark.parametrize("how", ["caps", "groups"])
def test_shares_under_caps_and_in_groups_come_to_the_same(how):
    options = {
        "caps": {"max_epochs": 2.0, "production_tokens": 2_000_000},
        "groups": {"groups": {"text": ("drama", "facts")}},
    }
    training = prepared(recipe(**options[how]))
    eta = training.initial_eta()
    after = shares(training, changed(training, eta, parsed(["mixture.code[1]+=0.07"])))
    before = shares(training, eta)
    wanted = before.copy()
    wanted[:3, 0] += 0.07
    wanted[:3, 1:] -= 0.07 * (before[:3, 1:] - FLOOR) / (before[:3, 1:] - FLOOR).sum(1)[:, None]
    assert after == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mixtur.code=0.6"], "unknown section; did you mean mixture?"),
        (["loss_weights.code=2"], "unknown section; allowed: mixture, learning_rates"),
        (["mixture.cod=0.6"], "unknown domain; did you mean code?"),
        (["mixture.code[3]=0.6"], "no such window; they are counted from 1 to 2"),
        (["mixture.code[0]=0.6"], "no such window"),
        (["mixture.code=1.5"], "comes to a share of 1.5 in window 1"),
        (["mixture.code=0.05"], "shares lie above the floor, 0.05, and below 0.9"),
        (["mixture.code=0.6", "mixture.drama=0.36"], "leaves 0.04 to the others"),
        (["mixture.code=0.5", "mixture.drama=0.3", "mixture.facts=0.3"], "come to 1.1"),
        (["learning_rates.lm_heat*=2"], "the nearest are lm_head"),
        (["learning_rates.lm_head*=0"], "a factor must be above 0"),
        (["learning_rates.lm_head*=-1"], "a factor must be above 0"),
        (["learning_rates.lm_head+=0.1"], "a rate is a factor; multiply it"),
        (["learning_rates.lm_head=9"], "comes to a factor of 9; the recipe's bound allows those"),
        (["learning_rates.mlp*=2"], "shares its rate with model.layers.0.input_layernorm.weight"),
        (["learning_rates.mlp*=2"], "say learning_rates.'model.layers.0'"),
    ],
)
def test_what_cannot_be_changed_is_refused(training, eta, words, said):
    with pytest.raises(RecipeError) as raised:
        changed(training, eta, parsed(words))
    assert said in str(raised.value)
    assert words[-1].partition("=")[0].rstrip("*+") in str(raised.value)


def test_what_is_tuned_and_can_not_be_changed_is_named_so():
    decay = schema.OptimizerFieldsSpec(weight_decay=schema.WeightDecaySpec())
    training = prepared(tiny(tune={"optimizer": decay, "mixture": schema.MixtureSpec()}))
    with pytest.raises(RecipeError) as raised:
        changed(training, training.initial_eta(), parsed(["optimizer.weight_decay=0.9"]))
    said = "is tuned here, but shares and rates of parameters alone can be changed"
    assert f"{said}; change one of: mixture" in str(raised.value)


def test_rates_that_are_not_tuned_are_not_changed_by_the_way():
    """A module of which a part keeps the base rate; the bound of others has no part in it."""
    rates = schema.LearningRatesSpec(per=("self_attn", "lm_head"), windows=3, max_multiplier=8.0)
    training = prepared(tiny(tune={"learning_rates": rates}))
    eta: Any = {key: np.array(leaf) for key, leaf in training.initial_eta().items()}
    eta["learning_rates"][:, 1] = 1e3  # at its bound, to all digits
    with pytest.raises(RecipeError, match="has a rate that isn't tuned, and stays the base"):
        changed(training, eta, parsed(["learning_rates.model.layers.0*=2"]))
    found = changed(training, eta, parsed(["learning_rates.attention[1]*=2"]))
    own: Any = next(each for each in training.tunables if each.key == "learning_rates")
    factors = own.multipliers(np.asarray(found["learning_rates"]))
    assert factors[:, 0] == pytest.approx([2, 1, 1])
    assert (np.asarray(found["learning_rates"])[:, 1] == 1e3).all()
