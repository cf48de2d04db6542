import dataclasses

from metatune.artefact import Origin
from metatune.artefact.comparison import Counterpart, config_sha256, differences

NAMES = ("model.layers.0.weight", "model.norm.weight")
DOMAINS = ("code", "drama", "é")
SHAPES = {"model.layers.0.weight": (8, 4), "model.norm.weight": (4,)}


def folder(names, tokenizer, domains, **more):
    """A model of the artefact's shapes, as far as names are known."""
    shapes = {name: SHAPES.get(name, (1,)) for name in names}
    return Counterpart("there", tuple(names), shapes, tokenizer, domains, **more)


def test_what_matches_has_no_differences(make):
    artefact = make(NAMES, provenance={"tokenizer_sha256": "ab"})
    assert differences(artefact, SHAPES, folder(NAMES[::-1], "ab", DOMAINS)) == []
    assert differences(artefact, SHAPES, folder(NAMES, None, None)) == []


def test_differences_are_named_on_both_sides(make):
    artefact = make(NAMES, provenance={"tokenizer_sha256": "ab"})
    other = folder(("model.layer.0.weight", "model.norm.weight", "zzz"), "cd", ("code", "drama"))
    assert differences(artefact, SHAPES, other) == [
        "1 parameters of the artefact that there doesn't have:",
        "  model.layers.0.weight (nearest: model.layer.0.weight)",
        "2 parameters of there that the artefact doesn't have:",
        "  model.layer.0.weight (nearest: model.layers.0.weight)",
        "  zzz",
        "another tokenizer: the artefact's has the hash ab, that of there cd",
        "1 domains of the artefact that there doesn't have:",
        "  é",
    ]


def test_domains_of_loss_weights_count_without_a_mixture(make):
    artefact = dataclasses.replace(make(NAMES), mixture=None)
    assert differences(artefact, SHAPES, folder(NAMES, None, ("code", "drama"))) == [
        "1 domains of the artefact that there doesn't have:",
        "  é",
    ]
    bare = dataclasses.replace(artefact, loss_weights=None)
    assert differences(bare, SHAPES, folder(NAMES, None, ("code",))) == []


RECIPE = "seed: 0\ninner: {steps: 20}\nouter: {estimator: {kind: mixflow, segment: 4}}\n"


def recipe(**changes):
    """A recipe that is like the artefact's."""
    same = Counterpart(
        "r.yaml",
        NAMES,
        SHAPES,
        "ab",
        DOMAINS,
        recipe=RECIPE,
        recipe_sha256="01",
        data_sha256={"code": "0f", "drama": "1f"},
        model_config={"hidden_size": 8},
        horizon=(20, 20 * 512),
    )
    return same._replace(**changes)


def tuned(make, **provenance):
    held = {
        "recipe_sha256": "01",
        "tokenizer_sha256": "ab",
        "data_sha256": {"code": "0f"},
        "model_config": {"hidden_size": 8},
    }
    return make(NAMES, provenance=held | provenance, origin=Origin(RECIPE, {}))


def test_its_own_recipe_matches(make):
    assert differences(tuned(make), SHAPES, recipe()) == []
    left_open = RECIPE.replace("kind: mixflow, segment: 4", "kind: auto")
    assert differences(tuned(make), SHAPES, recipe(recipe=left_open, recipe_sha256="02")) == []


def test_another_recipe_is_named_field_by_field(make):
    other = recipe(
        recipe="seed: 0\ninner: {steps: 40}\nouter: {estimator: {kind: reverse}}\n",
        data_sha256={"code": "0e"},
        model_config={"hidden_size": 16, "head_dim": 4},
        weights_sha256="77",
        horizon=(40, 40 * 512),
    )
    assert differences(tuned(make, weights_sha256="76"), SHAPES, other) == [
        "other data of code: the artefact's has the hash 0f, that of r.yaml 0e",
        "other weights: the artefact's has the hash 76, that of r.yaml 77",
        "another model config:",
        "  hidden_size: 8 of the artefact, 16 of r.yaml",
        "  head_dim: '(absent)' of the artefact, 4 of r.yaml",
        "another horizon: 20 steps, 10,240 tokens of the artefact, 40 steps, 20,480 tokens of "
        "r.yaml",
        "another recipe:",
        "  inner.steps: 20 of the artefact, 40 of r.yaml",
        "  outer.estimator.kind: 'mixflow' of the artefact, 'reverse' of r.yaml",
        "  outer.estimator.segment: 4 of the artefact, '(absent)' of r.yaml",
    ]


def test_without_its_own_recipe_the_hash_tells(make):
    bare = dataclasses.replace(tuned(make), origin=None)
    assert differences(bare, SHAPES, recipe()) == []
    assert differences(bare, SHAPES, recipe(recipe_sha256="02")) == [
        "another recipe: the artefact's has the hash 01, that of r.yaml 02"
    ]


def test_a_folder_s_config_may_say_more(make):
    there = folder(NAMES, None, None, model_config={"hidden_size": 8, "vocab": 9})
    assert differences(tuned(make), SHAPES, there) == []
    wide = there._replace(model_config={"hidden_size": 16})
    assert differences(tuned(make), SHAPES, wide) == [
        "another model config:",
        "  hidden_size: 8 of the artefact, 16 of there",
    ]


def test_the_order_of_a_config_is_no_difference():
    assert config_sha256({"a": 1, "b": 2}) == config_sha256({"b": 2, "a": 1})
    assert config_sha256({"a": 1}) != config_sha256({"a": 2})


def test_other_shapes_are_named_with_both(make):
    artefact = make(NAMES)
    grouped = folder(NAMES, None, None)._replace(
        shapes={"model.layers.0.weight": (4, 4), "model.norm.weight": (4,), "more": (1,)}
    )
    assert differences(artefact, SHAPES, grouped) == [
        "1 parameters of another shape:",
        "  model.layers.0.weight: [8, 4] of the artefact, [4, 4] of there",
    ]
    assert differences(artefact, {}, grouped) == []
