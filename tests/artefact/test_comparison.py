import dataclasses

from metatune.artefact.comparison import Counterpart, differences

NAMES = ("model.layers.0.weight", "model.norm.weight")
DOMAINS = ("code", "drama", "é")


def test_what_matches_has_no_differences(make):
    artefact = make(NAMES, provenance={"tokenizer_sha256": "ab"})
    assert differences(artefact, Counterpart("there", NAMES[::-1], "ab", DOMAINS)) == []
    assert differences(artefact, Counterpart("there", NAMES, None, None)) == []


def test_differences_are_named_on_both_sides(make):
    artefact = make(NAMES, provenance={"tokenizer_sha256": "ab"})
    other = Counterpart(
        "there", ("model.layer.0.weight", "model.norm.weight", "zzz"), "cd", ("code", "drama")
    )
    assert differences(artefact, other) == [
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
    assert differences(artefact, Counterpart("there", NAMES, None, ("code", "drama"))) == [
        "1 domains of the artefact that there doesn't have:",
        "  é",
    ]
    bare = dataclasses.replace(artefact, loss_weights=None)
    assert differences(bare, Counterpart("there", NAMES, None, ("code",))) == []
