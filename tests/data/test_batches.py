"""Batches: a pure function of the step, in exact proportions."""

from collections import Counter

import numpy as np
import pytest

from metatune.data import (
    ByteTokenizer,
    Corpus,
    Domain,
    Part,
    Statistics,
    heldout_batches,
    sampled_batches,
    stratified_batches,
)
from metatune.data.tokenized import TokenStream
from metatune.data.windows import Windows, all_windows
from metatune.recipe.schema import PackingSpec

LENGTH = 3
SPLITS = ("train", "validation", "test")


def windows(rows):
    stream = TokenStream(rows.astype(np.uint16).ravel(), np.zeros(1, np.int64), None)
    return all_windows(stream, LENGTH, PackingSpec(), 258)


def corpus(sizes=(7, 5, 11), target=(0.25, 0.0, 0.75)):
    """Domains whose windows all differ: a token for domain, split, and number of the window.

    Domain d has `sizes[d]` windows in each split.
    """
    domains = []
    for d, size in enumerate(sizes):
        splits = {
            split: windows(np.stack([np.full(size, d), np.full(size, s), np.arange(size)], axis=1))
            for s, split in enumerate(SPLITS)
        }
        held = Statistics(documents=0, tokens=0, bytes=0)
        domains.append(Domain(f"domain{d}", **splits, sha256="", statistics=held))
    return Corpus(tuple(domains), np.array(target), LENGTH, ByteTokenizer())


def sampled(seed=(0,), batch_size=8, shares=((0.5, 0.2, 0.3),), steps=20):
    shares = np.resize(np.array(shares), (steps, 3))
    return sampled_batches(corpus(), seed=seed, batch_size=batch_size, shares=shares)


def stratified(seed=(0,), batch_size=8, shares=((0.5, 0.2, 0.3),), steps=20):
    shares = np.resize(np.array(shares), (steps, 3))
    return stratified_batches(corpus(), seed=seed, batch_size=batch_size, shares=shares)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


@pytest.mark.parametrize("draw", [stratified, sampled])
def test_a_batch_depends_on_seed_and_step_alone(draw):
    forward = [draw()(step) for step in range(20)]
    batch = draw()
    for step in np.random.default_rng(0).permutation(20):
        assert same(batch(int(step)), forward[step])
    assert not same(forward[0], forward[1])


@pytest.mark.parametrize("draw", [stratified, sampled])
def test_seeds_differ(draw):
    seeds = [(0,), (1,), (0, 0), (0, 1), (1, 0), (2**32,), (0, 0, 0, 0, 0, 0)]
    runs = [np.concatenate([draw(seed)(step).tokens for step in range(20)]) for seed in seeds]
    assert len({run.tobytes() for run in runs}) == len(seeds)


@pytest.mark.parametrize("draw", [stratified, sampled])
def test_a_batch_says_what_it_holds(draw):
    batch = draw()(3)
    assert [array.dtype for array in batch[:3]] == [np.int32, np.int32, np.float32]
    assert [array.shape for array in batch[:3]] == [(8, LENGTH), (8,), (8,)]
    assert batch[3:] == (None,) * 5  # what no loss needs is not there
    assert np.array_equal(batch.tokens[:, 0], batch.domain)
    assert np.all(batch.tokens[:, 1] == SPLITS.index("train"))


@pytest.mark.parametrize("draw", [stratified, sampled])
def test_an_epoch_visits_every_window_once_and_each_epoch_in_another_order(draw):
    batch = draw()
    tokens = np.concatenate([batch(step).tokens for step in range(20)])
    for domain, size in enumerate((7, 5, 11)):
        drawn = tokens[tokens[:, 0] == domain, 2]
        whole = len(drawn) // size
        assert whole >= 2
        epochs = drawn[: whole * size].reshape(whole, size)
        assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(size), (whole, 1)))
        assert len({epoch.tobytes() for epoch in epochs}) == whole


@pytest.mark.parametrize("draw", [stratified_batches, sampled_batches])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_parts_are_the_rows_of_the_whole(draw, count):
    shares = np.random.default_rng(0).dirichlet(np.ones(3), size=20)

    def batches(**part):
        return draw(corpus(), seed=(7,), batch_size=8, shares=shares, **part)

    parts = [batches(part=Part(index, count)) for index in range(count)]
    for step in (0, 13, 19):
        rows = [part(step) for part in parts]
        assert all(len(each.tokens) == 8 // count for each in rows)
        for whole, *pieces in zip(batches()(step)[:3], *(each[:3] for each in rows), strict=True):
            assert np.array_equal(whole, np.concatenate(pieces))


def test_parts_of_held_out_batches_are_the_rows_of_the_whole():
    def batches(**part):
        return heldout_batches(
            corpus(), "validation", seed=(5,), sequences=12, micro_batch=4, **part
        )

    parts = [batches(part=Part(index, 2)) for index in range(2)]
    for whole, *pieces in zip(batches(), *parts, strict=True):
        assert np.array_equal(whole.tokens, np.concatenate([each.tokens for each in pieces]))


def test_a_part_reads_only_its_windows(monkeypatch):
    read = []
    take = Windows.take

    def watched(self, places):
        read.extend(places)
        return take(self, places)

    monkeypatch.setattr(Windows, "take", watched)
    shares = np.ones((1, 3)) / 3
    sampled_batches(corpus(), seed=(0,), batch_size=12, shares=shares, part=Part(2, 4))(0)
    assert len(read) == 3


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Part(0, 3), "a batch of 8 sequences has no 3 equal parts; choose a multiple of 3"),
        (Part(2, 2), "part 2 of 2; must be 0 to 1"),
        (Part(-1, 2), "part -1 of 2; must be 0 to 1"),
    ],
)
def test_parts_that_are_none_are_refused(part, message):
    with pytest.raises(ValueError, match=message):
        sampled_batches(corpus(), seed=(0,), batch_size=8, shares=np.ones((1, 3)) / 3, part=part)


@pytest.mark.parametrize("draw", [stratified_batches, sampled_batches])
def test_a_training_goes_on_at_any_step(draw):
    shares = np.random.default_rng(1).dirichlet(np.ones(3), size=60)

    def batches():
        return draw(corpus(), seed=(2,), batch_size=8, shares=shares)

    straight = [batches()(step) for step in range(60)]
    for begin in (1, 17, 59):
        resumed = batches()
        assert all(same(resumed(step), straight[step]) for step in range(begin, 60))


def test_a_batch_may_be_larger_than_a_domain():
    tokens = stratified(batch_size=60, shares=np.ones(3) / 3)(0).tokens
    assert Counter(tokens[tokens[:, 0] == 1, 2].tolist()) == dict.fromkeys(range(5), 4)


@pytest.mark.parametrize(
    ("batch_size", "drawn_at", "counts"),
    [
        (3, (0.2, 0.5, 0.3), [1, 1, 1]),
        (9, (1 / 3, 1 / 3, 1 / 3), [3, 3, 3]),
        (8, (0.25, 0.5, 0.25), [2, 4, 2]),
        (8, (0.0, 1.0, 0.0), [1, 6, 1]),
    ],
)
def test_stratified_weights_make_the_mean_exact_at_any_shares(batch_size, drawn_at, counts):
    batch = stratified(batch_size=batch_size, shares=drawn_at)(5)
    assert np.bincount(batch.domain).tolist() == counts
    rng = np.random.default_rng(1)
    losses, shares = rng.normal(size=batch_size), rng.dirichlet(np.ones(3))
    expected = sum(shares[d] * losses[batch.domain == d].mean() for d in range(3))
    mean = np.mean(shares[batch.domain] * batch.weight * losses)
    assert mean == pytest.approx(expected, rel=1e-6)  # the weights are float32


def test_a_stratified_batch_holds_every_domain():
    message = "batch_size is 2; a stratified batch needs at least one sequence of each domain, 3"
    with pytest.raises(ValueError, match=message):
        stratified(batch_size=2)


def test_stratified_counts_follow_the_shares_in_the_mean():
    batch = stratified(batch_size=10, shares=(0.68, 0.2, 0.12), steps=4000)
    counts = np.array([np.bincount(batch(step).domain) for step in range(4000)])
    assert counts.min() >= 1
    error = counts.std(axis=0) / np.sqrt(len(counts))
    assert np.all(np.abs(counts.mean(axis=0) - [6.8, 2.0, 1.2]) <= 3 * error + 1e-12)


def test_sampled_counts_keep_to_the_shares():
    steps, batch_size = 2000, 10
    shares = np.random.default_rng(2).dirichlet(np.ones(3), size=steps)
    batch = sampled_batches(corpus(), seed=(3, 1), batch_size=batch_size, shares=shares)
    drawn = [batch(step) for step in range(steps)]
    counts = np.array([np.bincount(each.domain, minlength=3) for each in drawn])
    assert np.all(counts.sum(axis=1) == batch_size)
    assert np.all(np.concatenate([each.weight for each in drawn]) == 1)
    error = counts - batch_size * shares
    assert np.all(np.abs(error) < 1)
    standard_error = error.std(axis=0) / np.sqrt(steps)
    assert np.all(np.abs(error.mean(axis=0)) < 3 * standard_error)


def test_a_share_of_zero_is_never_drawn():
    # Thirds and tenths don't sum to one in binary: the edges have to be right all the same.
    rows = [(0.0, 1 / 3, 2 / 3), (0.7, 0.0, 0.3), (0.1, 0.9, 0.0), (0.3 + 0.6, 0.1, 0.0)]
    for seed in range(50):
        batch = sampled((seed,), batch_size=24, shares=rows)
        for step in range(20):
            assert set(batch(step).domain) == set(np.flatnonzero(rows[step % 4]))


@pytest.mark.parametrize("total", [1 - 9e-7, 1 + 9e-7])
def test_a_batch_is_full_where_shares_sum_to_one_but_for_rounding(total):
    size = 400_000  # times 9e-7 is a third of a sequence
    shares = np.tile(np.array([0.5, 0.3, 0.2]) * total, (3, 1))
    batch = sampled_batches(corpus((1000,) * 3), seed=(0,), batch_size=size, shares=shares)
    assert [len(batch(step).tokens) for step in range(3)] == [size] * 3


@pytest.mark.parametrize("hot", range(3))
def test_a_share_of_one_is_drawn_alone(hot):
    batch = sampled(shares=[np.eye(3)[hot]])
    assert all(np.all(batch(step).domain == hot) for step in range(20))


def test_what_was_sampled_does_not_depend_on_later_shares():
    rows = np.random.default_rng(4).dirichlet(np.ones(3), size=20)
    short, long = (
        sampled_batches(corpus(), seed=(0,), batch_size=8, shares=rows[:steps])
        for steps in (10, 20)
    )
    assert all(same(short(step), long(step)) for step in range(10))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (np.ones((4, 2)) / 2, r"shares are of shape \(4, 2\); must be \[steps, 3\]"),
        (np.ones(3) / 3, r"shares are of shape \(3,\); must be \[steps, 3\]"),
        ([[1, 0, 0], [0.5, 0.6, -0.1]], r"shares of step 1 are \[0.5, 0.6, -0.1\]; must be 0 or"),
        ([[0.5, 0.2, 0.2]], "shares of step 0 are .* sum to one"),
        ([[np.nan, 0.5, 0.5]], "shares of step 0 are .* sum to one"),
    ],
)
def test_shares_that_are_none_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        sampled_batches(corpus(), seed=(0,), batch_size=8, shares=np.array(shares))


def test_held_out_weights_make_the_mean_of_every_batch_exact():
    held = corpus(target=(0.2, 0.5, 0.3))
    batches = heldout_batches(held, "validation", seed=(5,), sequences=20, micro_batch=8)
    assert len(batches) == 3  # 20 sequences, rounded up to batches of 8
    for batch in batches:
        assert np.bincount(batch.domain).tolist() == [3, 3, 2]
        losses = np.random.default_rng(6).normal(size=8)
        means = [losses[batch.domain == d].mean() for d in range(3)]
        assert np.mean(batch.weight * losses) == pytest.approx(held.target @ means, rel=1e-6)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_windows_are_of_their_split_and_of_target_domains(split):
    batches = heldout_batches(corpus(), split, seed=(5,), sequences=12, micro_batch=4)
    tokens = np.concatenate([batch.tokens for batch in batches])
    assert set(tokens[:, 1]) == {SPLITS.index(split)}
    assert np.bincount(tokens[:, 0]).tolist() == [6, 0, 6]
    assert np.array_equal(tokens[:, 0], np.concatenate([batch.domain for batch in batches]))
    assert len({tuple(row) for row in tokens.tolist()}) == len(tokens)  # without replacement


def test_splits_are_drawn_in_orders_of_their_own():
    held = corpus(sizes=(50,), target=(1.0,))
    batches = [
        stratified_batches(held, seed=(5,), batch_size=50, shares=np.ones((1, 1)))(0),
        *heldout_batches(held, "validation", seed=(5,), sequences=50, micro_batch=50),
        *heldout_batches(held, "test", seed=(5,), sequences=50, micro_batch=50),
    ]
    assert len({batch.tokens[:, 2].tobytes() for batch in batches}) == 3


def test_a_small_held_out_split_begins_again():
    batches = heldout_batches(corpus(), "test", seed=(5,), sequences=28, micro_batch=4)
    drawn = np.concatenate([batch.tokens[batch.domain == 0, 2] for batch in batches])
    assert Counter(drawn.tolist()) == dict.fromkeys(range(7), 2)
    assert not np.array_equal(drawn[:7], drawn[7:])


@pytest.mark.parametrize(
    ("sequences", "micro_batch", "shape"),
    [(6, 100, [6]), (6, 1, [2, 2, 2]), (1, 1, [2]), (7, 3, [3, 3, 3])],
)
def test_held_out_batches_have_one_size(sequences, micro_batch, shape):
    batches = heldout_batches(
        corpus(), "validation", seed=(0,), sequences=sequences, micro_batch=micro_batch
    )
    assert [len(batch.tokens) for batch in batches] == shape


def uneven():
    """Domains whose windows hold beginnings of documents, which aren't predicted."""
    random = np.random.default_rng(8)
    domains = []
    for number, size in enumerate((40, 70)):
        splits = {}
        for split in SPLITS:
            starts = np.unique(np.append(0, random.integers(0, 6 * size, size)))
            tokens = random.integers(0, 250, 6 * size).astype(np.uint16)
            stream = TokenStream(tokens, starts, None)
            splits[split] = all_windows(stream, 6, PackingSpec(cross_documents=False), 258)
        held = Statistics(documents=0, tokens=0, bytes=0)
        domains.append(Domain(f"domain{number}", **splits, sha256="", statistics=held))
    return Corpus(tuple(domains), np.array([0.25, 0.75]), 6, ByteTokenizer())


SOME = np.tile([0.3, 0.7], (5, 1))


def test_sampled_weights_make_the_mean_one_over_the_tokens_that_count():
    for step in range(5):
        batch = sampled_batches(uneven(), seed=(0,), batch_size=8, shares=SOME)(step)
        assert batch.mask is not None and batch.lengths is None
        counted = batch.mask.sum(1)
        assert np.ptp(counted) > 0
        losses = np.random.default_rng(step).normal(size=batch.mask.shape)
        by_sequence = (losses * batch.mask).sum(1) / counted
        expected = (losses * batch.mask).sum() / counted.sum()
        assert np.mean(batch.weight * by_sequence) == pytest.approx(expected, rel=1e-6)


def test_stratified_batches_know_how_long_the_sequences_of_each_domain_are():
    batch = stratified_batches(uneven(), seed=(0,), batch_size=8, shares=SOME)(2)
    assert batch.mask is not None and batch.lengths is not None
    counted = batch.mask.sum(1)
    means = [counted[batch.domain == d].mean() for d in range(2)]
    np.testing.assert_allclose(batch.lengths, np.tile(means, (8, 1)), rtol=1e-7)
    counts = np.bincount(batch.domain)
    np.testing.assert_allclose(batch.weight, counted * 8 / counts[batch.domain], rtol=1e-7)


@pytest.mark.parametrize("micro_batch", [4, 9])
def test_held_out_weights_make_the_mean_one_over_the_tokens_of_all_batches(micro_batch):
    held = uneven()
    drawn = {"seed": (5,), "sequences": 36, "micro_batch": micro_batch}
    batches = heldout_batches(held, "validation", **drawn)
    losses = [
        np.random.default_rng(i).normal(size=b.tokens[:, 1:].shape) for i, b in enumerate(batches)
    ]
    total, count, found = np.zeros(2), np.zeros(2), []
    for batch, each in zip(batches, losses, strict=True):
        assert batch.mask is not None
        np.add.at(total, batch.domain, (each * batch.mask).sum(1))
        np.add.at(count, batch.domain, batch.mask.sum(1))
        found.append(np.mean(batch.weight * (each * batch.mask).sum(1) / batch.mask.sum(1)))
    assert np.mean(found) == pytest.approx(held.target @ (total / count), rel=1e-6)


@pytest.mark.parametrize("draw", [stratified_batches, sampled_batches])
@pytest.mark.parametrize("count", [2, 4])
def test_parts_weigh_by_the_tokens_of_the_whole(draw, count):
    def batch(**part):
        return draw(uneven(), seed=(7,), batch_size=8, shares=SOME, **part)(3)

    parts = [batch(part=Part(index, count)) for index in range(count)]
    for whole, *pieces in zip(batch(), *parts, strict=True):
        if whole is not None:
            np.testing.assert_array_equal(whole, np.concatenate(pieces))


def test_parts_of_held_out_batches_weigh_by_the_tokens_of_the_whole():
    def batches(**part):
        return heldout_batches(uneven(), "test", seed=(5,), sequences=12, micro_batch=4, **part)

    parts = [batches(part=Part(index, 2)) for index in range(2)]
    for whole, *pieces in zip(batches(), *parts, strict=True):
        np.testing.assert_array_equal(whole.weight, np.concatenate([p.weight for p in pieces]))


def test_counting_tokens_says_what_the_masks_do():
    for domain in uneven().domains:
        places = np.arange(len(domain.train))[::-3]
        mask = domain.train.take(places).mask
        assert mask is not None
        np.testing.assert_array_equal(domain.train.counted_tokens(places), mask.sum(1))
        everything = domain.train.take(np.arange(len(domain.train))).mask
        assert everything is not None
        assert domain.train.mean_tokens() == pytest.approx(everything.sum(1).mean(), rel=1e-12)
