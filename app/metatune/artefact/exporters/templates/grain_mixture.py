"""A source of examples for Grain that follows the tuned mixture as it moves.

mixed = Mixed(sources, total_steps, batch_size)
dataset = grain.MapDataset.source(mixed).batch(batch_size)
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from metatune_schedules import TUNED, loss_weights, mixture  # pyright: ignore[reportMissingImports]


class Source(Protocol):
    """Examples of a domain, with random access."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """One of them."""
        ...


class Mixed:
    """The examples of a whole training in their order: the index gives the example, always."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        total_steps: int,
        batch_size: int,
        *,
        seed: int = 0,
        path: Path = TUNED,
    ):
        """Mixes `sources`, one for each domain; past its end a source begins anew.

        Args:
            sources: a source for each domain of the mixture.
            total_steps: updates of the training.
            batch_size: sequences of an update.
            seed: of the draws.
            path: the tuned.json.

        Raises:
            ValueError: the sources aren't the domains of the mixture.
        """
        self._domains = list(mixture(0, total_steps, path=path))
        if set(sources) != set(self._domains):
            raise ValueError(f"sources {sorted(sources)}: must be {sorted(self._domains)}")
        self._sources, self._seed, self._path = dict(sources), seed, path
        self._steps, self._batch = total_steps, batch_size
        self._weighted = "domains" in (
            json.loads(path.read_text(encoding="utf-8"))["loss_weights"] or {}
        )
        counts = [np.bincount(self._drawn(t), minlength=len(sources)) for t in range(total_steps)]
        self._before = np.cumsum([np.zeros_like(counts[0]), *counts], axis=0)

    def __len__(self) -> int:
        """Sequences of the whole training."""
        return self._steps * self._batch

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The example of position `index`, with its `loss_weight` if these were tuned."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        step, place = divmod(int(index), self._batch)
        drawn = self._drawn(step)
        which = drawn[place]
        position = int(self._before[step, which] + np.sum(drawn[:place] == which))
        domain = self._domains[which]
        source = self._sources[domain]
        example = dict(source[position % len(source)])
        if self._weighted:
            example["loss_weight"] = np.float32(self._weights(step)[domain])
        return example

    def _weights(self, step: int) -> dict[str, float]:
        return loss_weights(step, self._steps, path=self._path)

    @functools.lru_cache(maxsize=4)  # noqa: B019  keeps the last updates alone
    def _drawn(self, step: int) -> np.ndarray:
        """The domain of each sequence of an update, as a number."""
        shares = list(mixture(step, self._steps, path=self._path).values())
        random = np.random.default_rng((self._seed, step))
        return random.choice(len(shares), size=self._batch, p=shares)
