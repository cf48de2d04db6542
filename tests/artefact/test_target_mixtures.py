"""Mixtures that move in torchtitan and OLMo-core, by what these ask of their data sets.

`scripts/try_exports.py` runs the same modules with the targets' own loaders.
"""

import random
from typing import Any

import numpy as np
import pytest
from torch.utils.data import IterableDataset

from metatune.artefact import ArtefactError, Mixture
from metatune.artefact.exporters import EXPORTERS, export

STEPS, BATCH = 10, 40
SHARES = np.array([[0.75, 0.25, 0.0], [0.2, 0.3, 0.5]])
DOMAINS = ("code", "drama", "é")
LLAMA = ("model.embed_tokens.weight", "model.norm.weight")


@pytest.fixture
def exported(make, tmp_path):
    def write(target, interpolation="constant", shares=SHARES, **options):
        knots = (0.0, 0.5)[: len(shares)]
        mixture = Mixture(knots, interpolation, DOMAINS, shares)  # pyright: ignore[reportArgumentType]
        artefact = make(LLAMA, STEPS, mixture=mixture, loss_weights=None)
        export(artefact, target, tmp_path / target, overwrite=True, **options)
        return artefact, tmp_path / target

    return write


class InterleavedDataset(IterableDataset):
    """As torchtitan/hf_datasets/interleaved.py of torchtitan 0.3.0 draws and keeps its state."""

    def __init__(self, datasets, weights, seed=None, stopping_strategy="on_first_exhausted"):
        self._datasets, self._rng = datasets, random.Random(seed)
        self._probs = [w / sum(weights) for w in weights]

    def __iter__(self):
        iterators = [iter(own) for own in self._datasets]
        while True:
            (i,) = self._rng.choices(range(len(iterators)), weights=self._probs, k=1)
            try:
                yield next(iterators[i])
            except StopIteration:
                break

    def state_dict(self):
        return {"rng": self._rng.getstate(), "sources": [own.at for own in self._datasets]}

    def load_state_dict(self, sd):
        self._rng.setstate(sd["rng"])
        for own, at in zip(self._datasets, sd["sources"], strict=True):
            own.at = at


class Rows:
    """A source that goes on where it was."""

    def __init__(self, name, length=10**6):
        self.name, self.at, self.length = name, 0, length

    def __iter__(self):
        while self.at < self.length:
            self.at += 1
            yield self.name, self.at - 1


@pytest.fixture
def moving(exported, load_module, stub):
    artefact, folder = exported("torchtitan", "linear")
    stub("torchtitan.components.dataloader", ParallelAwareDataloader=object)
    own: Any = type("Loader", (), {"Config": type("Config", (), {})})
    named = {"HuggingFaceTextDataset": object, "InterleavedHuggingFaceTextDataLoader": own}
    stub("torchtitan.hf_datasets.text_datasets", **named)
    stub("torchtitan.hf_datasets.interleaved", InterleavedDataset=InterleavedDataset)
    module = load_module(folder, "metatune_mixture")

    def build(per_step=400, length=10**6):
        rows = [Rows(name, length) for name in DOMAINS]
        return module.MovingInterleavedDataset(rows, STEPS, per_step, seed=1)

    return artefact, build


def test_torchtitan_draws_by_the_shares_of_the_update(moving):
    artefact, build = moving
    drawn = [name for (name, _), _ in zip(build(), range(400 * STEPS), strict=False)]
    for step in range(STEPS):
        own = drawn[400 * step : 400 * step + 400]
        for name, share in artefact.mixture_at(step, STEPS).items():
            error = 3.5 * (share * (1 - share) / 400) ** 0.5  # of 30 counts, about one in 2000
            assert abs(own.count(name) / 400 - share) <= error, (step, name)
    assert list(build(length=3))  # ends where a source does


def test_torchtitan_goes_on_with_the_shares_of_its_update(moving):
    _, build = moving
    whole = [row for row, _ in zip(build(), range(4000), strict=False)]
    first, second = build(), build()
    start = [row for row, _ in zip(first, range(2345), strict=False)]
    second.load_state_dict(first.state_dict())
    # zip draws one more of the first before it stops.
    rest = [row for row, _ in zip(second, range(4000 - 2346), strict=False)]
    assert start + [whole[2345]] + rest == whole


class InstanceSource:
    """As olmo_core/data/composable/instance_source.py of OLMo-core 3.0.0."""

    def __init__(self, *, work_dir, sequence_length, max_sequence_length=None, label=None):
        self.sequence_length = sequence_length
        self.max_sequence_length = max_sequence_length or sequence_length

    def validate_index(self, idx):
        if not 0 <= idx < len(self):  # pyright: ignore[reportArgumentType]
            raise IndexError(idx)
        return int(idx)


class Instances(InstanceSource):
    fingerprint = "own"

    def __init__(self, name, length, sequence_length=8):
        super().__init__(work_dir=None, sequence_length=sequence_length)
        self.name, self.length = name, length

    def __len__(self):
        return self.length

    def __getitem__(self, idx):
        return self.name, idx


@pytest.fixture
def mixed(exported, load_module, stub):
    base = {"InstanceSource": InstanceSource, "InstanceSourceConfig": object}
    stub("olmo_core.data.composable", **base)

    def build(lengths=(70, 100, 60), batch=BATCH, interpolation="linear", **options):
        artefact, folder = exported("olmo-core", interpolation)
        module = load_module(folder, "metatune_mixture")
        sources = dict(zip(DOMAINS, map(Instances, DOMAINS, lengths), strict=True))
        numbers = (STEPS, batch, options.pop("seed", 0))
        return artefact, module.TunedMixture(sources, *numbers, work_dir=None, **options)

    return build


@pytest.mark.parametrize("batch", [1, 3, BATCH])
def test_olmo_core_takes_what_the_shares_add_up_to(mixed, batch):
    artefact, mixture = mixed(batch=batch)
    rows = [mixture[i] for i in range(len(mixture))]
    assert len(rows) == STEPS * batch
    due = dict.fromkeys(DOMAINS, 0.0)
    for step in range(STEPS):
        for name, share in artefact.mixture_at(step, STEPS).items():
            due[name] += batch * share
            taken = sum(own == name for own, _ in rows[: batch * (step + 1)])
            assert abs(taken - due[name]) < 1 + 1e-9, (step, name)


def test_olmo_core_reads_each_domain_whole_before_it_begins_anew(mixed):
    _, mixture = mixed()
    rows = [mixture[i] for i in range(len(mixture))]
    for name, length in zip(DOMAINS, (70, 100, 60), strict=True):
        own = [i for domain, i in rows if domain == name]
        assert sorted(own[:length]) == list(range(min(length, len(own)))), name
        assert own[:length] != sorted(own[:length])
    code = [i for domain, i in rows if domain == "code"]
    assert len(code) > 70 and code[70:] != code[: len(code) - 70]  # another order
    assert rows == [mixture[i] for i in range(len(mixture))]
    _, other = mixed(seed=1)
    assert other.fingerprint != mixture.fingerprint
    assert rows != [other[i] for i in range(len(other))]


def test_olmo_core_refuses_sources_that_cannot_be(mixed):
    with pytest.raises(ValueError, match="source é: holds no instance"):
        mixed(lengths=(1, 1, 0))
    with pytest.raises(ValueError, match="sequences_per_step 0: must be 1 or above"):
        mixed(batch=0)


def test_shares_that_stay_need_no_module(exported):
    for target in ("torchtitan", "olmo-core"):
        _, folder = exported(target, shares=SHARES[:1], lossy=False)
        assert not (folder / "metatune_mixture.py").exists()
        assert "metatune_mixture" not in (folder / "README.md").read_text()
        _, folder = exported(target)
        assert (folder / "metatune_mixture.py").is_file()


def test_the_main_branch_of_torchtitan_has_other_files(exported):
    known = EXPORTERS["torchtitan"].versions
    assert list(known) == ["0.3.0", "main-2026-08-21"]
    with pytest.raises(ArtefactError, match="torchtitan can't express it: shares that change"):
        exported("torchtitan", target_version="main-2026-08-21")
    _, folder = exported("torchtitan", target_version="main-2026-08-21", lossy=True)
    text = (folder / "README.md").read_text()
    assert "# Tuned schedules for torchtitan main of 2026-08-21" in text
    assert "DatasetMixConfig(" in text and "InterleavedHuggingFace" not in text
    assert '"weight": 0.475' in (folder / "sources.json").read_text()
    with pytest.raises(ArtefactError) as refused:
        exported("torchtitan", target_version="0.2.0")
    assert "is written for 0.3.0 and main-2026-08-21; leave it out" in str(refused.value)
