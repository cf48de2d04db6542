"""The sampler of the export to PyTorch: shares as tuned, and exact resume at any position."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from metatune.artefact import LossWeights, Mixture
from metatune.artefact.exporters import export

pytestmark = pytest.mark.needs("torch")

DOMAINS = ("code", "drama", "é")


@pytest.fixture
def module(make, tmp_path, load_module):
    shares = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    weights = np.array([[0.5, 1.0, 1.5]])
    artefact = make(
        mixture=Mixture((0.0, 0.5), "linear", DOMAINS, shares),
        loss_weights=LossWeights((0.0,), "constant", DOMAINS, weights),
    )
    export(artefact, "torch", tmp_path / "out")
    return load_module(tmp_path / "out")


def sources():
    return {name: [{"domain": name, "i": i} for i in range(37)] for name in DOMAINS}


def test_realised_shares_are_within_three_standard_errors(module):
    steps, batch = 500, 200
    stream = iter(module.Mixed(sources(), steps, batch))
    drawn, expected, variance = np.zeros(3), np.zeros(3), np.zeros(3)
    for step in range(steps):
        share = np.array(list(module.mixture(step, steps).values()))
        expected += batch * share
        variance += batch * share * (1 - share)
        for _ in range(batch):
            drawn[DOMAINS.index(next(stream)["domain"])] += 1
    assert drawn.sum() == 1e5
    assert np.all(np.abs(drawn - expected) <= 3 * np.sqrt(variance))


def test_resume_is_exact_at_fifty_random_positions(module):
    steps, batch = 40, 7
    stream = iter(module.Mixed(sources(), steps, batch, seed=5))
    straight = [next(stream) for _ in range(steps * batch)]
    for position in random.Random(0).sample(range(steps * batch - 20), 50):
        first = module.Mixed(sources(), steps, batch, seed=5)
        reading = iter(first)
        for _ in range(position):
            next(reading)
        second = module.Mixed(sources(), steps, batch, seed=5)
        second.load_state_dict(first.state_dict())
        rest = iter(second)
        assert [next(rest) for _ in range(20)] == straight[position : position + 20]


def test_iterables_resume_too_and_end_the_whole(module):
    def once():
        return {name: ({"domain": name, "i": i} for i in range(60)) for name in DOMAINS}

    straight = list(module.Mixed(once(), 40, 7))
    first = module.Mixed(once(), 40, 7)
    reading = iter(first)
    head = [next(reading) for _ in range(25)]
    second = module.Mixed(once(), 40, 7)
    second.load_state_dict(first.state_dict())
    assert head + list(second) == straight
    assert max(row["i"] for row in straight) == 59


def test_each_sequence_has_the_weight_of_its_domain(module):
    stream = iter(module.Mixed(sources(), 10, 30))
    weights = dict(zip(DOMAINS, (0.5, 1.0, 1.5), strict=True))
    for _ in range(300):
        row = next(stream)
        assert row["loss_weight"] == pytest.approx(weights[row["domain"]])


def test_the_seed_decides(module):
    def drawn(seed):
        stream = iter(module.Mixed(sources(), 10, 30, seed=seed))
        return [next(stream)["domain"] for _ in range(100)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_several_workers_are_refused(module, monkeypatch):
    stream = module.Mixed(sources(), 10, 30)
    # As within one of several workers: a process with JAX's threads must not be forked.
    monkeypatch.setattr(module, "get_worker_info", lambda: SimpleNamespace(num_workers=2))
    with pytest.raises(ValueError, match="num_workers 2: must be 0 or 1 for this dataset"):
        next(iter(stream))
