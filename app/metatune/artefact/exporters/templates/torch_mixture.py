"""The sequences of a training in their order, by the tuned mixture as it moves, for PyTorch.

    from metatune_mixture import Mixed

    mixed = Mixed(sources, total_steps, batch_size)  # a source of examples for each domain
    loader = torch.utils.data.DataLoader(mixed, batch_size=batch_of_a_device)

It ends after `total_steps` updates. Don't shuffle it: its order is the schedule. Shuffle the
sources before.
"""

import itertools
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from metatune_schedules import (  # pyright: ignore[reportMissingImports]
    TUNED,
    domain_weights,
    mixture,
)
from torch.utils.data import IterableDataset, get_worker_info


class Mixed(IterableDataset):
    """Sequences of the domains in the order of a training, by the mixture as it moves.

    Which domain gives the sequence at a place of an update, and which of its sequences that is,
    depends on the seed, the update and the place alone, however many processes and workers share
    an update out among them. Iterating begins at `start_step`, always: a loader that skips what
    was drawn before a checkpoint and a training that is given its update go on exactly. Where loss
    weights were tuned, a sequence that is a dict gets its `loss_weight`.
    """

    def __init__(
        self,
        sources: Mapping[str, Any],
        total_steps: int,
        batch_size: int,
        *,
        seed: int = 0,
        start_step: int = 0,
        microbatch: int | None = None,
        rank: int | None = None,
        ranks: int | None = None,
        path: Path = TUNED,
    ):
        """Mixes `sources`, one for each domain of the mixture.

        A source with a length and an index begins anew past its end; another iterable is read
        once, and ends the whole when it is exhausted.

        Args:
            sources: a source for each domain of the mixture.
            total_steps: updates of the training.
            batch_size: sequences per update, over all processes and accumulated gradients.
            seed: of the draws.
            start_step: the update to begin with; of a training that is resumed, those it has made.
            microbatch: sequences of a batch of the loader; must be given for several workers.
            rank: of the process among those that share an update out, from 0.
            ranks: how many share an update out; 1 where the loader does that itself, as the
                prepared loaders of accelerate do. By default, rank and ranks are those of
                torch.distributed.
            path: the tuned.json.

        Raises:
            ValueError: no mixture was tuned, the sources aren't its domains, or an update can't be
                shared out into whole batches.
        """
        domains = list(mixture(0, total_steps, path=path))
        if set(sources) != set(domains):
            found = sorted(sources)
            raise ValueError(f"sources {found}: must be the domains of {path}, {sorted(domains)}")
        if not 0 <= start_step <= total_steps:
            raise ValueError(f"start_step {start_step}: must be 0 to {total_steps}, the updates")
        if (rank is None) != (ranks is None) and ranks != 1:
            raise ValueError(f"rank {rank}, ranks {ranks}: give both or none")
        self.total_steps, self.batch_size = total_steps, batch_size
        self._sources, self._seed, self._path = dict(sources), seed, path
        self._microbatch, self._start_step, self._shared = microbatch, start_step, None
        self._loaded: int | None = None
        self._position: int | None = None
        self._drawn_before = (0, dict.fromkeys(domains, 0))
        if ranks is not None:
            self.shared(rank or 0, ranks, microbatch)

    def shared(self, rank: int, ranks: int, microbatch: int | None) -> None:
        """Says which process this is of those that share an update out, and its loader's batch.

        Raises:
            ValueError: an update can't be shared out so.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank}: must be 0 to {ranks - 1}, below ranks")
        if self.batch_size % (ranks * (microbatch or 1)):
            raise ValueError(
                f"batch_size {self.batch_size}: the sequences of an update must be whole batches "
                f"of {microbatch or 1} for each of {ranks} processes"
            )
        self._shared, self._microbatch = (rank, ranks), microbatch

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy for a worker, which may not know the process that it serves."""
        return {**self.__dict__, "_shared": self._ranks()}

    def __iter__(self) -> Iterator[Any]:
        """The sequences of this process, and of this worker, from `start_step` on.

        Raises:
            ValueError: several workers without `microbatch`, a source without an index that is to
                be shared out or was read before, or processes that aren't told apart.
        """
        rank, ranks = self._ranks()
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if workers > 1 and self._microbatch is None:
            raise ValueError(f"num_workers {workers}: give `microbatch`, the loader's batch_size")
        again, own = self._position is not None, self.batch_size // ranks
        for name, source in self._sources.items():
            if not _indexed(source) and ranks * workers > 1:
                raise ValueError(
                    f"source {name}: {ranks} processes with {workers} workers share out sources "
                    "with a length and an index alone"
                )
            if again and iter(source) is source:
                raise ValueError(f"source {name}: was read before, and can be read only once")
        start = self._start_step * own if self._loaded is None else self._loaded
        self._position = start
        return self._sequences(start, (rank, ranks), (number, workers, self._microbatch or 1))

    def _sequences(
        self, start: int, share: tuple[int, int], worker: tuple[int, int, int]
    ) -> Iterator[Any]:
        """What a process, and a worker, draws from its sequence `start` on."""
        (rank, ranks), (number, workers, chunk) = share, worker
        own = self.batch_size // ranks
        readers = {name: _Reader(source) for name, source in self._sources.items()}
        for step in range(start // own, self.total_steps):
            drawn, taken = self._drawn(step), self._taken(step)
            weights = domain_weights(step, self.total_steps, path=self._path)
            for place, domain in enumerate(drawn):
                index, taken[domain] = taken[domain], taken[domain] + 1
                position = step * own + place // ranks
                mine = place % ranks == rank and position // chunk % workers == number
                if not mine or position < start:
                    continue
                try:
                    sequence = readers[domain].at(index)
                except StopIteration:
                    return
                self._position = position + 1
                if weights and isinstance(sequence, Mapping):
                    sequence = {**sequence, "loss_weight": weights[domain]}
                yield sequence

    def state_dict(self) -> dict[str, Any]:
        """Where this process, or this worker, stands: StatefulDataLoader asks for it.

        A loader that reads ahead, or in workers, leaves this object where it doesn't know what was
        trained on: resume by `start_step` there.

        Raises:
            ValueError: nothing was drawn by this object, as where a DataLoader's workers do it.
        """
        if self._position is None:
            raise ValueError(
                "nothing was drawn here: a loader's workers have their own copies. Resume by "
                "`start_step`, the updates made, or use torchdata's StatefulDataLoader"
            )
        return {"position": self._position, "agreed": self._agreed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there when it is next iterated over.

        Raises:
            ValueError: the state is of another seed, another batch or other processes.
        """
        for name, number in self._agreed().items():
            if (then := state_dict["agreed"][name]) != number:
                raise ValueError(f"{name} {number}: the training that is resumed had {then}")
        self._loaded = state_dict["position"]

    def _agreed(self) -> dict[str, int]:
        numbers = {"total_steps": self.total_steps, "batch_size": self.batch_size}
        return {**numbers, "seed": self._seed, "ranks": self._ranks()[1]}

    def _ranks(self) -> tuple[int, int]:
        """Which process this is of how many that share an update out."""
        if self._shared is not None:
            return self._shared
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return 0, 1
        rank, ranks = distributed.get_rank(), distributed.get_world_size()
        accelerate = sys.modules.get("accelerate")
        if ranks > 1 and accelerate is not None and accelerate.PartialState._shared_state:
            raise ValueError(
                f"{ranks} processes under accelerate: give `ranks=1` where its prepared loader "
                "shares batches out, `rank` and `ranks` where it doesn't"
            )
        if self.batch_size % (ranks * (self._microbatch or 1)):
            self.shared(rank, ranks, self._microbatch)  # says what is wrong
        return rank, ranks

    def _drawn(self, step: int) -> list[str]:
        """The domain of each sequence of an update."""
        shares = mixture(step, self.total_steps, path=self._path)
        draw = random.Random(f"{self._seed}/{step}")
        return draw.choices(list(shares), list(shares.values()), k=self.batch_size)

    def _taken(self, step: int) -> dict[str, int]:
        """How many sequences of each domain were drawn before an update."""
        at, taken = self._drawn_before
        if at > step:
            at, taken = 0, dict.fromkeys(taken, 0)
        counts = Counter(taken)
        for before in range(at, step):
            counts.update(self._drawn(before))
        taken = {name: counts[name] for name in taken}
        self._drawn_before = (step, taken)
        return dict(taken)


class _Reader:
    """The sequences of a source by their number; one without an index goes forward only."""

    def __init__(self, source: Any):
        self._source, self._indexed = source, _indexed(source)
        self._rest, self._next = (None, 0) if self._indexed else (iter(source), 0)

    def at(self, index: int) -> Any:
        if self._rest is None:
            return self._source[index % len(self._source)]
        skipped, self._next = index - self._next, index + 1
        return next(itertools.islice(self._rest, skipped, None))


def _indexed(source: Any) -> bool:
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")
