"""Rates are shared until they pull apart: on bowls of known truth and noise, and in real runs."""

import dataclasses
import io
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import CODE, tiny
from rich.console import Console
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from metatune import artefact
from metatune.fit import outer_loop
from metatune.fit.outer_loop import fit
from metatune.fit.searching import hypergradients as hypergradients_of
from metatune.fit.searching import outer_optimizers
from metatune.fit.searching.points import taken
from metatune.fit.searching.search import Search
from metatune.fit.searching.sharing import KEY, Shared, Sharing, apart
from metatune.hypergrad import Diagnostics, Hypergradient, as_argument
from metatune.inner import prepare
from metatune.recipe import schema
from metatune.report import terminal
from metatune.tunables import Groups

LABELS = (
    "model.embed_tokens.weight",
    *(f"model.layers.{n}.{kind}.weight" for n in (0, 1) for kind in ("mlp.up", "self_attn.q")),
    "model.norm.weight",
)
MLP = np.array(["mlp" in label for label in LABELS])
WINDOWS, EVERY = 2, 5
OPTIMIZER = outer_optimizers.build(schema.AdamSpec(learning_rate=0.1), 1.0, counted=True)
UPDATE = jax.jit(OPTIMIZER.update)


def groups(labels=LABELS):
    return Groups(labels, None, {label: (label,) for label in labels})


def started(sharing):
    eta = {KEY: jnp.zeros((sharing.windows, sharing.groups.size))}
    return Search(0, eta, OPTIMIZER.init(eta), eta, shared=sharing.begin())


def descended(sharing, search, truth, steps, seed, noise=0.3):
    """A descent in a bowl `Σ h (η - truth)² / 2` of unlike curvatures, by noisy slopes."""
    random = np.random.default_rng(seed)
    curvature = np.linspace(0.5, 2.0, truth.size).reshape(truth.shape)
    for _ in range(steps):
        slope = curvature * (np.asarray(search.eta[KEY]) - truth)
        slope += noise * random.standard_normal(truth.shape)
        gradient = {KEY: jnp.asarray(slope, jnp.float32)}
        search = sharing.observe(search, gradient)
        updates, state = UPDATE(
            sharing.sum_blocks(search, gradient), search.opt_state, counts=sharing.counts(search)
        )
        eta = optax.apply_updates(search.eta, updates)
        search = search._replace(step=search.step + 1, eta=eta, opt_state=state)
        search = sharing.revise(search)[0]
    return search


def of_blocks(search, leaf):
    """The different values within each block."""
    partition = np.asarray(search.shared.partition)
    return [set(np.asarray(leaf)[partition == block].tolist()) for block in np.unique(partition)]


def test_what_differs_is_split_and_goes_its_own_way():
    sharing = Sharing(groups(), WINDOWS, EVERY, 1.5)
    truth = np.where(MLP, 1.0, -1.0) * np.ones((WINDOWS, 1))
    pure, near, counts = 0, 0, []
    for seed in range(20):
        search = descended(sharing, started(sharing), truth, 40, seed)
        blocks = of_blocks(search, truth)
        pure += all(len(values) == 1 for values in blocks)
        near += bool(np.abs(np.asarray(search.eta[KEY]) - truth).max() < 0.5)
        counts.append(len(blocks))
        first = search.changes[0]
        assert first["change"] == "split" and set(first["into"]) >= {"mlp"}
        for leaf in jax.tree.leaves((search.eta, search.opt_state)):
            if np.shape(leaf) == truth.shape:
                assert all(len(values) == 1 for values in of_blocks(search, leaf))
    assert pure >= 18 and near >= 18
    assert np.mean(counts) < truth.size / 3


def test_windows_that_differ_are_split_where_they_do():
    sharing = Sharing(groups(), 4, EVERY, 1.5)
    truth = np.array([[1.0], [1.0], [1.0], [-1.0]]) * np.ones(len(LABELS))
    firsts = [descended(sharing, started(sharing), truth, 40, seed).changes[0] for seed in range(5)]
    into = ["all parameters, window 1 to 3", "all parameters, window 4"]
    assert sum(first["into"] == into for first in firsts) >= 4


def test_what_does_not_differ_is_seldom_split_however_unlike_the_curvatures():
    sharing = Sharing(groups(), WINDOWS, EVERY, 1.5)
    truth = np.ones((WINDOWS, len(LABELS)))
    found = [descended(sharing, started(sharing), truth, 40, seed) for seed in range(20)]
    firsts = [search.changes[0] for search in found if search.changes]
    # 6.7 % of seven periods each, on the way to the optimum and around it.
    assert len(firsts) <= 14
    assert all(np.abs(np.asarray(search.eta[KEY]) - 1).max() < 0.4 for search in found)


@pytest.mark.parametrize(("every", "threshold", "allowed"), [(5, 1.5, 1 / 16), (7, 1.5, 4 / 64)])
def test_at_a_common_optimum_splits_are_as_rare_as_the_threshold_says(every, threshold, allowed):
    """Whatever the noise of a cell, how cells go together, and the number of ways to split."""
    sharing = Sharing(groups(), WINDOWS, every, threshold)
    random, found = np.random.default_rng(0), 0
    mixed = random.standard_normal((WINDOWS * len(LABELS), WINDOWS * len(LABELS)))
    for _ in range(1000):
        slopes = random.standard_cauchy((every, len(mixed))) @ mixed
        shared = sharing.begin()._replace(gradients=slopes.reshape(every, WINDOWS, len(LABELS)))
        search = started(sharing)._replace(step=every, shared=shared)
        found += len(sharing.revise(search)[1])
    spread = np.sqrt(1000 * allowed * (1 - allowed))
    assert abs(found - 1000 * allowed) < 3 * spread


def test_the_chance_of_a_pull_is_that_of_all_choices_of_signs():
    one, other = np.array([[1.0, 2.0, 3.0, 4.0]]).T, -np.array([[4.0, 3.0, 2.0, 1.0]]).T
    assert apart(one, other) == (0, 1 / 8)
    # The sum of the squares stays, so that means alone tell which choices pull as far.
    one = np.array([[3.0, 3.0, 3.0, -1.0]]).T
    assert apart(one, -one) == (0, 2 / 8)
    assert apart(one, one) == (0, 1.0)
    assert apart(np.hstack([one, other]), np.hstack([one, -other])) == (1, 1 / 8)


def test_pulls_without_any_noise_are_the_largest():
    still = np.ones((4, 1))
    assert apart(still, -still) == (0, 1 / 8)
    assert apart(still, 0 * still) == (0, 1.0)


def split_off(sharing, mask):
    """A search whose first block has been split, at outer step 0."""
    search = started(sharing)
    other = int(np.flatnonzero(mask)[0])
    return search._replace(
        shared=search.shared._replace(partition=np.where(mask, other, 0).astype(np.int32)),
        changes=({"step": 0, "change": "split", "blocks": [0, other]},),
    )


def test_a_split_without_cause_is_taken_back_and_one_with_cause_is_not():
    sharing = Sharing(groups(), WINDOWS, EVERY, 1.5)
    mask = np.broadcast_to(MLP, (WINDOWS, len(LABELS)))
    back = {True: 0, False: 0}
    for differs in back:
        truth = np.where(MLP & differs, -1.0, 1.0) * np.ones((WINDOWS, 1))
        for seed in range(20):
            search = descended(sharing, split_off(sharing, mask), truth, 30, seed)
            back[differs] += any(c["change"] == "merge" for c in search.changes[1:2])
    assert back[False] >= 16 and back[True] <= 2


def test_a_merge_takes_means_of_values_and_of_states():
    sharing = Sharing(groups(), WINDOWS, EVERY, 1.5)
    mask = np.broadcast_to(MLP, (WINDOWS, len(LABELS)))
    search = split_off(sharing, mask)
    # The higher side, of 4 of 12 cells, is pulled down more; it wavers about the other.
    wavering = np.array([0.5, -0.3, 0.4, -0.2, 0.3]).reshape(EVERY, 1, 1)
    noise = np.random.default_rng(3).standard_normal((EVERY, *mask.shape))
    slopes = np.where(mask, 1.0, -1.0) + 0.1 * noise
    moments = jax.tree.map(lambda leaf: jnp.where(mask, 3.0, leaf), search.opt_state)
    search = search._replace(
        step=EVERY,
        eta={KEY: jnp.where(mask, 0.3, 0.0)},
        opt_state=jax.tree.map(
            lambda leaf, new: new if np.shape(leaf) == mask.shape else leaf,
            search.opt_state,
            moments,
        ),
        shared=Shared(search.shared.partition, slopes, np.where(mask, wavering, 0.0)),
    )
    found, changes = sharing.revise(search)
    assert [change["change"] for change in changes] == ["merge"]
    assert changes[0]["into"] == ["all parameters"]
    np.testing.assert_allclose(found.eta[KEY], 0.1, rtol=1e-6)
    for leaf in jax.tree.leaves(found.opt_state):
        if np.shape(leaf) == mask.shape:
            np.testing.assert_allclose(leaf, 1.0, rtol=1e-6)


RATES = schema.LearningRatesSpec(
    per="kind", windows=2, prior=0.1, sharing=schema.SharingSpec(every=4, threshold=1.1)
)
RECIPE = tiny(
    data={"domains": {"code": CODE}, "sequence_length": 8, "batch_size": 2},
    inner={"steps": 4},
    tune=schema.TuneSpec(learning_rates=RATES),
    outer={
        "steps": 7,
        "ema": 0.5,
        "objective": schema.ObjectiveSpec(sequences=2, micro_batch=2, deviation=0.1),
        "validation": schema.ValidationSpec(seeds=1, sequences=2, every=9),
        "test": schema.FinalTestSpec(seeds=1, sequences=2),
    },
)


def changed(**rates):
    return dataclasses.replace(
        RECIPE, tune=schema.TuneSpec(learning_rates=dataclasses.replace(RATES, **rates))
    )


def run(training, out, **options):
    with open(os.devnull, "w") as nowhere:
        return fit(training, out, console=Console(file=nowhere), **options)


def test_what_is_shared_by_all_is_tuned_as_one_rate_is(tmp_path, monkeypatch):
    """Runs of the same objective, of every rate at every step; clipped, and no split in time."""
    monkeypatch.setattr(outer_loop, "held_out_loss", lambda *_, **__: 1.0)
    seen = []

    @jax.jit
    def sloped(problem, eta):
        def objective(eta):
            rates = [
                jax.tree.leaves(problem.hyper_at(eta, step).learning_rate) for step in range(4)
            ]
            return sum(
                jnp.sum(jnp.sin(300.0 * (1 + number) * rate))
                for own in rates
                for number, rate in enumerate(own)
            )

        return jax.value_and_grad(objective)(eta)

    def estimate(problem, eta, state, batches, outer_batches, **_):
        seen.append(np.asarray(eta[KEY]))
        value, slopes = sloped(as_argument(problem), eta)
        assert np.unique(slopes[KEY]).size == slopes[KEY].size
        return Hypergradient(value, slopes, state, Diagnostics(jnp.ones(1)))

    monkeypatch.setattr(hypergradients_of, "hypergradient", estimate)
    for name, recipe in (
        ("shared", changed(sharing=schema.SharingSpec(every=9))),
        ("one", changed(per="global", windows=1, sharing=None)),
    ):
        outer = dataclasses.replace(RECIPE.outer, clip_norm=0.5)
        run(prepare(dataclasses.replace(recipe, outer=outer)), tmp_path / name)
    shared, one = seen[:7], seen[7:]
    assert shared[6].shape == (2, 5) and one[6].shape == (1, 1)
    assert abs(float(one[6][0, 0])) > 0.1
    for of_all, alone in zip(shared, one, strict=True):
        np.testing.assert_allclose(of_all, np.broadcast_to(alone, of_all.shape), rtol=2e-5)


def test_the_history_is_told_and_a_stopped_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """The last window pulls against the first; what is drawn depends on the step alone."""
    monkeypatch.setattr(outer_loop, "held_out_loss", lambda *_, **__: 1.0)
    stops = []

    def estimate(problem, eta, state, batches, outer_batches, *, key, **_):
        if stops and len(asked) == stops[0]:
            raise KeyboardInterrupt
        asked.append(np.asarray(eta[KEY]))
        slopes = jnp.array([[1.0], [-1.0]]) + 0.1 * jax.random.normal(key, eta[KEY].shape)
        return Hypergradient(jnp.float32(2.0), {KEY: slopes}, state, Diagnostics(jnp.ones(1)))

    monkeypatch.setattr(hypergradients_of, "hypergradient", estimate)
    asked = []
    training = prepare(RECIPE)
    whole = run(training, tmp_path / "whole")
    lines = [line["sharing"] for line in taken(whole.folder.read_metrics())]
    assert [line["blocks"] for line in lines[:5]] == [1, 1, 1, 2, 2]
    (split,) = lines[3]["changes"]
    assert split["into"] == ["all parameters, window 1", "all parameters, window 2"]
    assert (split["step"], split["blocks"], split["p"]) == (3, [0, 5], 1 / 8)
    assert lines[3]["partition"] == [[0] * 5, [5] * 5]
    assert len(np.unique(asked[4])) == 1 and len(np.unique(asked[5])) == 2
    told = whole.artefact.result["sharing"]
    assert told["changes"][0] == split and told == lines[-1] | {"changes": told["changes"]}
    text = io.StringIO()
    Console(file=text, width=120).print(terminal.summary(whole.artefact, []))
    sentence = "from point 4 on: split all parameters, window 1 | all parameters, window 2"
    assert sentence in text.getvalue()
    assert sentence in (whole.folder.artefact / "README.md").read_text()
    events = [
        value.tensor.string_val[0].decode()
        for file in whole.folder.tensorboard.iterdir()
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tag.startswith("sharing")
    ]
    assert sentence in events[0]
    asked, stops = [], [5]  # within the second period
    assert run(training, tmp_path / "stopped").interrupted
    stops = []
    again = run(training, tmp_path / "stopped", resume=True)
    for name in ("tuned.json", "README.md"):
        found = [(each.folder.artefact / name).read_bytes() for each in (again, whole)]
        assert found[0] == found[1]
    assert artefact.load(whole.folder.path).result["sharing"] == told
