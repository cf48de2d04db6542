"""The tuned mixture as it moves, as one source of instances for OLMo-core's composable loader.

from metatune_mixture import TunedMixtureConfig

mixture = TunedMixtureConfig(sources, total_steps, sequences_per_step).build(work_dir)
loader = ComposableDataLoaderConfig(..., shuffle=False).build(mixture, work_dir=work_dir)

Its order is the schedule: the loader must not shuffle it. Instances of a domain are shuffled here,
anew each time that the domain begins again.
"""

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from metatune_schedule import TUNED, shares  # pyright: ignore[reportMissingImports]
from olmo_core.data.composable import (  # pyright: ignore[reportMissingImports]
    InstanceSource,
    InstanceSourceConfig,
)

STEPS_KEPT = 16  # orders of updates that are remembered; threads of a loader are near each other


@dataclass
class TunedMixtureConfig(InstanceSourceConfig):
    """Builds a `TunedMixture`.

    Attributes:
        sources: of each domain of the mixture, by its name.
        total_steps: updates of the training.
        sequences_per_step: of an update, over all processes: `global_batch_size` over the length.
        seed: of the order.
    """

    sources: Mapping[str, InstanceSourceConfig]
    total_steps: int
    sequences_per_step: int
    seed: int = 0

    def build(self, work_dir: Any) -> "TunedMixture":
        """The mixture of the sources, built too."""
        built = {name: source.build(work_dir) for name, source in self.sources.items()}
        numbers = (self.total_steps, self.sequences_per_step, self.seed)
        return TunedMixture(built, *numbers, work_dir=work_dir)


class TunedMixture(InstanceSource):
    """The instances of a training in their order.

    After any update the instances of each domain are those that the tuned shares add up to, within
    one: nothing is drawn. Which place of an update a domain has is.
    """

    def __init__(
        self,
        sources: Mapping[str, InstanceSource],
        total_steps: int,
        sequences_per_step: int,
        seed: int = 0,
        *,
        work_dir: Any,
    ):
        """Mixes built sources; numbers are those of `TunedMixtureConfig`.

        Raises:
            ValueError: the sources aren't the domains of the mixture, have different lengths of
                sequences or none at all, or a number below 1.
        """
        domains = list(shares(0, 1))
        if set(sources) != set(domains):
            found = sorted(sources)
            raise ValueError(f"sources {found}: must be the domains of {TUNED}, {sorted(domains)}")
        for name, number in (
            ("total_steps", total_steps),
            ("sequences_per_step", sequences_per_step),
        ):
            if number < 1:
                raise ValueError(f"{name} {number}: must be 1 or above")
        self._sources = [sources[name] for name in domains]
        (length, *others) = {(s.sequence_length, s.max_sequence_length) for s in self._sources}
        if others or length[0] != length[1]:
            raise ValueError(f"sequence lengths {sorted([length, *others])}: must be one of all")
        super().__init__(work_dir=work_dir, sequence_length=length[0])
        self._steps, self._batch, self._seed = total_steps, sequences_per_step, seed
        rows = [list(shares(step, total_steps).values()) for step in range(total_steps)]
        self._taken = whole_counts(np.array(rows), sequences_per_step)
        for name, source, used in zip(domains, self._sources, self._taken[-1], strict=True):
            if used and not len(source):
                raise ValueError(f"source {name}: holds no instance")
        self._order = functools.lru_cache(STEPS_KEPT)(self._order_of)
        self._shuffled = functools.lru_cache(2 * len(domains))(self._shuffle_of)

    def children(self) -> Iterable[InstanceSource]:
        """The sources of the domains."""
        return self._sources

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the sources and the whole order."""
        own = hashlib.sha256(f"{self._steps}/{self._batch}/{self._seed}".encode())
        own.update(self._taken.tobytes())
        for source in self._sources:
            own.update(source.fingerprint.encode())
        return own.hexdigest()

    def __len__(self) -> int:
        """Instances of the whole training."""
        return self._steps * self._batch

    def __getitem__(self, idx: int) -> Any:
        """The instance at a place of the training."""
        step, place = divmod(self.validate_index(idx), self._batch)
        domains, numbers = self._order(step)
        domain = int(domains[place])
        source = self._sources[domain]
        round_of_it, at = divmod(int(numbers[place]), len(source))
        return source[int(self._shuffled(domain, round_of_it)[at])]

    def _order_of(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The domain of each place of an update, and which of the domain's instances it is."""
        before, after = self._taken[step], self._taken[step + 1]
        domains = np.repeat(np.arange(len(before)), after - before)
        domains = np.random.default_rng([self._seed, step]).permutation(domains)
        numbers = np.empty(self._batch, np.int64)
        for domain, (start, end) in enumerate(zip(before, after, strict=True)):
            numbers[domains == domain] = np.arange(start, end)
        return domains, numbers

    def _shuffle_of(self, domain: int, round_of_it: int) -> np.ndarray:
        random = np.random.default_rng([self._seed, domain, round_of_it])
        return random.permutation(np.arange(len(self._sources[domain]), dtype=np.uint32))


def whole_counts(rows: np.ndarray, batch: int) -> np.ndarray:
    """How many instances of each domain were taken before each update, int64 [steps + 1, domains].

    Args:
        rows: shares, [steps, domains].
        batch: instances of an update.
    """
    due, taken = batch * np.cumsum(rows, axis=0), np.zeros((len(rows) + 1, rows.shape[1]), np.int64)
    for step, wanted in enumerate(due):
        owed = np.maximum(wanted - taken[step], 0.0)
        own = np.floor(owed).astype(np.int64)
        while own.sum() > batch:  # where rounding has given some too few before
            own[np.argmin(np.where(own > 0, owed - own, np.inf))] -= 1
        rest = np.argsort(own - owed, kind="stable")[: batch - own.sum()]
        own[rest] += 1
        taken[step + 1] = taken[step] + own
    return taken
