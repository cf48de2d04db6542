"""Windows that are spoilt on purpose: which, how, and that nothing else changes."""

import numpy as np
import pytest

from metatune.data import load
from metatune.data.tokenized import TokenStream
from metatune.data.windows import Windows, all_windows
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import CorruptionSpec

LENGTH = 20


def windows(count=2000, corruption=None, rest=0, **packing):
    tokens = np.arange(count * LENGTH + rest, dtype=np.uint16)
    stream = TokenStream(tokens, np.zeros(1, np.int64), None)
    whole = all_windows(stream, LENGTH, schema.PackingSpec(**packing), 0)
    return Windows(stream, LENGTH, whole.numbers, whole.packing, 0, corruption=corruption)


def test_so_many_are_spoilt_in_the_ways_that_are_said():
    spec = CorruptionSpec(share=0.3)
    found, intact, places = windows(corruption=spec), windows(), np.arange(2000)
    spoilt = found.corrupted(places)
    assert abs(spoilt.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)
    was, now = intact.take(places).tokens, found.take(places).tokens
    np.testing.assert_array_equal(now[~spoilt], was[~spoilt])
    repeated = (now == was[:, [0, 1] * (LENGTH // 2)]).all(axis=1)
    assert abs(repeated[spoilt].mean() - 0.5) < 4 * 0.5 / np.sqrt(spoilt.sum())
    assert not repeated[~spoilt].any()
    shuffled = spoilt & ~repeated
    np.testing.assert_array_equal(np.sort(now[shuffled], axis=1), was[shuffled])
    assert (now[shuffled] != was[shuffled]).any(axis=1).all()
    assert not intact.corrupted(places).any()


def test_a_window_is_the_same_in_whatever_company_it_is_read():
    found = windows(corruption=CorruptionSpec(share=0.5, ways=("shuffle",)))
    places = np.array([7, 1999, 3])
    np.testing.assert_array_equal(
        found.take(places).tokens, found.take(np.arange(2000)).tokens[places]
    )
    other = windows(corruption=CorruptionSpec(share=0.5, ways=("shuffle",), seed=1))
    assert (other.corrupted(np.arange(2000)) != found.corrupted(np.arange(2000))).any()


def test_padding_stays_where_it_is():
    found = windows(20, CorruptionSpec(share=0.999), rest=4, last_window="pad")
    assert len(found) == 21
    assert found.corrupted(np.arange(21)).tolist() == [True] * 20 + [False]
    np.testing.assert_array_equal(found.take(np.array([20])).tokens[0, 4:], 0)


def test_held_out_text_stays_as_it_is(tmp_path):
    lines = "".join(f"{number} bottles of beer on the wall\n" for number in range(4000))
    (tmp_path / "beer.txt").write_text(lines)

    def corpus(**source):
        domain = schema.SourceSpec(path=str(tmp_path / "beer.txt"), **source)
        return load(
            schema.DataSpec({"beer": domain}, {"beer": 1.0}, sequence_length=32, batch_size=2)
        )

    (was,), (now,) = corpus().domains, corpus(corrupt=CorruptionSpec(share=0.5)).domains
    for split in ("train", "validation", "test"):
        before, after = getattr(was, split), getattr(now, split)
        places = np.arange(len(before))
        np.testing.assert_array_equal(before.numbers, after.numbers)
        same = (before.take(places).tokens == after.take(places).tokens).all(axis=1)
        np.testing.assert_array_equal(same, ~after.corrupted(places))
        assert same.all() == (split != "train")


def test_what_is_wrong_with_it_is_said(tmp_path):
    asked = schema.SourceSpec(
        jsonl="*.jsonl", prompt="q", completion="a", corrupt=CorruptionSpec(share=1.5, ways=())
    )
    with pytest.raises(RecipeError) as refused:
        load(schema.DataSpec({"sums": asked}, {"sums": 1.0}, sequence_length=32, batch_size=2))
    found = [str(fault) for fault in refused.value.faults]
    assert (
        "data.domains.sums.corrupt = {'share': 1.5, 'ways': (), 'seed': 0}: goes with plain text "
        "only, which has no classes of tokens; take it out"
    ) in found
    assert (
        "data.domains.sums.corrupt.share = 1.5: must be a fraction between 0 and 1, both excluded"
    ) in found
    assert "data.domains.sums.corrupt.ways = (): must be a list of at least one" in found
