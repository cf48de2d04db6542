"""The tuned mixture as it moves, for torchtitan's configuration.

from metatune_mixture import TunedDataLoader

dataloader = TunedDataLoader.Config(
    sources=sources, total_steps=1000, sequences_per_step=global_batch_size
)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from metatune_schedule import TUNED, shares  # pyright: ignore[reportMissingImports]
from torch.utils.data import get_worker_info
from torchtitan.components.dataloader import (  # pyright: ignore[reportMissingImports]
    ParallelAwareDataloader,
)
from torchtitan.hf_datasets.interleaved import (  # pyright: ignore[reportMissingImports]
    InterleavedDataset,
)
from torchtitan.hf_datasets.text_datasets import (  # pyright: ignore[reportMissingImports]
    HuggingFaceTextDataset,
    InterleavedHuggingFaceTextDataLoader,
)


class MovingInterleavedDataset(InterleavedDataset):
    """Packed sequences of one process, each drawn by the shares of the update that it is part of.

    How many were drawn is part of its state: a training that is resumed goes on with the shares of
    its update.
    """

    def __init__(self, datasets: Sequence[Any], total_steps: int, per_step: int, **options: Any):
        """Interleaves a source for each domain, in their order in tuned.json.

        Args:
            datasets: the sources.
            total_steps: updates of the training.
            per_step: sequences of an update of this process.
            **options: `seed` and `stopping_strategy`.
        """
        super().__init__(list(datasets), list(shares(0, total_steps).values()), **options)
        self._total_steps, self._per_step, self._drawn = total_steps, per_step, 0

    def __iter__(self) -> Iterator[Any]:
        """The sequences from where this stands.

        Raises:
            ValueError: several workers, each of which would read all of the data.
        """
        if (worker := get_worker_info()) is not None and worker.num_workers > 1:
            raise ValueError(f"num_workers {worker.num_workers}: must be 0 or 1")
        sequences = super().__iter__()  # which looks at its probabilities at each draw
        while True:
            step = min(self._drawn // self._per_step, self._total_steps - 1)
            self._probs = list(shares(step, self._total_steps).values())
            try:
                sequence = next(sequences)
            except StopIteration:
                return
            self._drawn += 1
            yield sequence

    def state_dict(self) -> dict[str, Any]:
        """That of the sources, and the sequences drawn."""
        return {**super().state_dict(), "drawn": self._drawn}

    def load_state_dict(self, sd: dict[str, Any]) -> None:
        """Goes on from there."""
        super().load_state_dict(sd)
        self._drawn = sd["drawn"]


class TunedDataLoader(ParallelAwareDataloader):
    """As `InterleavedHuggingFaceTextDataLoader`, with shares that move; weights have no effect."""

    @dataclass(kw_only=True, slots=True)
    class Config(InterleavedHuggingFaceTextDataLoader.Config):
        """`sources` has one for each domain, in their order in tuned.json."""

        total_steps: int
        """Updates of the training: `training.steps`."""

        sequences_per_step: int
        """Of an update, over all processes: `training.global_batch_size`."""

    def __init__(
        self,
        config: Any,
        *,
        dp_world_size: int,
        dp_rank: int,
        tokenizer: Any,
        seq_len: int,
        local_batch_size: int,
        snapshot_every_n_steps: int | None = 1,
        **kwargs: Any,
    ):
        """As torchtitan builds its loaders.

        Raises:
            ValueError: sources that aren't one for each domain, or an update that isn't whole
                batches of each process.
        """
        domains = list(shares(0, config.total_steps))
        if len(config.sources) != len(domains):
            raise ValueError(
                f"{len(config.sources)} sources: must be one for each domain of {TUNED}, in this "
                f"order: {', '.join(domains)}"
            )
        if config.sequences_per_step % (dp_world_size * local_batch_size):
            raise ValueError(
                f"sequences_per_step {config.sequences_per_step}: must be whole batches of "
                f"{local_batch_size} for each of {dp_world_size} processes"
            )
        dataset = MovingInterleavedDataset(
            [
                HuggingFaceTextDataset(
                    dataset_name=source.dataset,
                    dataset_path=source.dataset_path,
                    tokenizer=tokenizer,
                    seq_len=seq_len,
                    dp_rank=dp_rank,
                    dp_world_size=dp_world_size,
                    infinite=source.infinite,
                )
                for source in config.sources
            ],
            config.total_steps,
            config.sequences_per_step // dp_world_size,
            seed=config.seed + dp_rank,  # or all processes would draw the same domains
            stopping_strategy=config.stopping_strategy,
        )
        super().__init__(
            dataset,
            dp_rank=dp_rank,
            dp_world_size=dp_world_size,
            num_workers=config.num_workers,
            persistent_workers=config.persistent_workers,
            pin_memory=config.pin_memory,
            prefetch_factor=config.prefetch_factor,
            snapshot_every_n_steps=snapshot_every_n_steps,
            batch_size=local_batch_size,
        )
