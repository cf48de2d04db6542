"""Rules on a start that is tuned."""

import pytest

from metatune.recipe import reading, writing

POINT = {"tune": {"initialisation": {"kind": "point"}}}
SOUP = {"tune": {"initialisation": {"kind": "interpolation", "checkpoints": ["other"]}}}
PRETRAINED = {"model": {"pretrained": "model"}}
ONE_DRAW = {"fresh": {"initialisation": False}}
LORA = {
    "optimizer": {"kind": "adamw", "learning_rate": 0.003},
    "steps": 20,
    "lora": {"targets": ["q_proj"], "rank": 2, "alpha": 4},
}
TRUNCATED = {"kind": "truncated", "window": 5}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            POINT,
            "outer.fresh.initialisation = True: tune.initialisation tunes one point, but with "
            "model.config each training would draw its own; write false: every training then "
            "starts from the draw of the recipe's seed",
        ),
        (
            POINT | PRETRAINED | {"inner": LORA},
            "outer.fresh.initialisation = True: tune.initialisation tunes one point, but with "
            "inner.lora each training would draw its own; write false: every training then "
            "starts from the draw of the recipe's seed",
        ),
        (
            SOUP,
            "tune.initialisation.kind = 'interpolation': interpolates from model.pretrained, but "
            "the model starts from fresh parameters; write model.pretrained, or kind: point",
        ),
        (
            SOUP | PRETRAINED | {"inner": LORA},
            "tune.initialisation.kind = 'interpolation': moves what is trained, adapters here, "
            "which checkpoints don't hold; take out inner.lora, or kind: point",
        ),
        (
            POINT | PRETRAINED | {"outer": {"steps": 1, "unroll": TRUNCATED}},
            "outer.unroll.window = 5: leaves step 0 out, of 20, so that tune.initialisation has no "
            "gradient; take kind: full, or kind: online, whose first windows begin at step 0",
        ),
        (
            POINT | PRETRAINED | {"outer": {"phases": [{"steps": 1, "unroll": TRUNCATED}]}},
            "outer.phases[0].unroll.window = 5: leaves step 0 out, of 20, so that "
            "tune.initialisation has no gradient; take kind: full, or kind: online, whose first "
            "windows begin at step 0",
        ),
        (
            POINT
            | PRETRAINED
            | {"trainer": {"command": "true"}}
            | {"outer": {"steps": 1, "estimator": {"kind": "zeroth_order"}}},
            "tune.initialisation.kind = 'point': an external trainer isn't given weights to start "
            "from; take it out, or train here",
        ),
        (
            PRETRAINED | {"tune": {"initialisation": {"kind": "point", "parameters": ["("]}}},
            "tune.initialisation.parameters[0] = '(': not a regular expression: missing ), "
            "unterminated subpattern at position 0; write one as Python's `re` reads it, e.g. "
            "self_attn",
        ),
        (
            PRETRAINED | {"tune": {"initialisation": {"kind": "interpolation", "checkpoints": []}}},
            "tune.initialisation.checkpoints = (): must be null, or a list of at least one; "
            "there is no default: choose one",
        ),
    ],
)
def test_a_broken_rule_is_one_fault(tree, changes, line):
    _, faults = reading.collect(tree | changes)
    assert [str(fault) for fault in faults] == [line]


@pytest.mark.parametrize(
    "changes",
    [
        POINT | {"outer": {"steps": 3} | ONE_DRAW},
        POINT | PRETRAINED,
        SOUP | PRETRAINED,
        POINT | PRETRAINED | {"outer": {"steps": 1, "unroll": {"kind": "online", "window": 5}}},
        POINT | PRETRAINED | {"outer": {"steps": 1, "unroll": {**TRUNCATED, "window": 20}}},
        POINT
        | PRETRAINED
        | {"outer": {"phases": [{"steps": 1, "unroll": TRUNCATED}, {"steps": 1}]}},
    ],
)
def test_what_is_sound_comes_back_as_it_was_written(tree, changes):
    recipe = reading.parse(tree | changes, "recipe")
    assert reading.parse(writing.to_tree(recipe), "recipe") == recipe
