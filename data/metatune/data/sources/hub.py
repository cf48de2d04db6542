"""Hugging Face datasets: from the hub, from a folder, or saved to disk. No code of theirs runs."""

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from metatune.data.sources import files
from metatune.data.sources.records import ROWS, Location, Row
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import SourceSpec

TRAIN: Final = "train"


def open_dataset(source: SourceSpec, place: Location) -> Any:
    """A dataset by hub id or folder, one split of it.

    Args:
        source: what the recipe says.
        place: the field that names it, and the id or folder.

    Returns:
        A `datasets.Dataset`; if `streaming`, an `IterableDataset`.

    Raises:
        RecipeError: it can't be had, or not in this configuration or split.
    """
    import datasets  # here, because it takes seconds
    from datasets.exceptions import DatasetsError

    name, folder = place.source, Path(place.source).expanduser()
    local = folder.is_dir()
    if not local and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        cure = f"relative paths start at the working directory, {Path.cwd()}"
        raise place.refuse("no such folder", cure)
    try:
        return datasets.load_dataset(
            str(folder) if local else name,
            source.config,
            split=source.split or TRAIN,
            revision=source.revision,
            streaming=bool(source.streaming),
        )
    except (OSError, ValueError, DatasetsError) as error:
        raise _refused(place, error) from error


def open_saved(source: SourceSpec, place: Location) -> Any:
    """A dataset that `save_to_disk` wrote, one split of it.

    Raises:
        RecipeError: there is none in that folder, or not that split.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        saved = datasets.load_from_disk(str(Path(place.source).expanduser()))
    except (OSError, ValueError, KeyError, DatasetsError) as error:
        raise _refused(place, error) from error
    if isinstance(saved, datasets.Dataset):
        if source.split:
            raise place.refuse("holds no splits", "take split out")
        return saved
    split = source.split or TRAIN
    if split not in saved:
        problem = f"has no split {split}; there are: {', '.join(map(str, saved))}"
        raise place.refuse(problem, "name one of them as split")
    return saved[split]


def _refused(place: Location, error: Exception) -> RecipeError:
    """The first line of an error, and that of its first cause: the library wraps what is wrong."""
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    lines = [(str(each).strip() or type(each).__name__).splitlines()[0] for each in (error, first)]
    lines = [line.rstrip(".") for line in lines]
    cure = "check id, config, split and revision, and the network or HF_HUB_OFFLINE"
    return place.refuse(f"can't be loaded: {': '.join(dict.fromkeys(lines))}", cure)


def dataset_rows(dataset: Any, place: Location, wanted: Sequence[str]) -> Iterator[Row]:
    """The rows of a dataset, only the columns that are wanted.

    Raises:
        RecipeError: a column that is wanted is missing, or the data are damaged.
    """
    place = place._replace(unit="row")
    if dataset.column_names is not None:
        place.require(wanted, dataset.column_names)
        dataset = dataset.select_columns(list(wanted))
    from metatune.data.sources.arrow import plain_rows  # here, as it takes long

    number = 0
    with files.reading(place):
        # Whatever format it was saved with: what its columns hold.
        for table in dataset.with_format("arrow").iter(batch_size=ROWS):
            place.require(wanted, table.column_names)
            for values in plain_rows(table.select(list(wanted))):
                number += 1
                yield Row(place._replace(number=number), values)


def identity(source: SourceSpec, dataset: Any) -> str:
    """What a dataset is: its fingerprint; of a stream, what the recipe says of it."""
    if not source.streaming:
        return dataset._fingerprint  # the library has no public name for it
    said = [source.dataset, source.config, source.split, source.revision, *_stamps(source.dataset)]
    return sha256(json.dumps(said).encode()).hexdigest()


def _stamps(name: str | None) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files of a local dataset, none of one on the hub."""
    folder = Path(name or "").expanduser()
    found = sorted(path for path in folder.rglob("*") if path.is_file()) if name else []
    stats = [(str(path.relative_to(folder)), path.stat()) for path in found]
    return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
