"""Files of records, row by row: JSON lines, Parquet, CSV."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from metatune.data.sources.files import lines, reading
from metatune.data.sources.records import Place, Row

PARQUET_ROWS: Final = 256  # at a time
PARQUET_BUFFER: Final = 2**20  # bytes of a column that are read at a time


def jsonl_rows(path: Path, field: str, wanted: Sequence[str]) -> Iterator[Row]:
    """An object from each line that isn't blank.

    Raises:
        RecipeError: a line isn't a JSON object, or lacks a column that is wanted.
    """
    for place, line in lines(path, field):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            cure = "write one JSON object on each line"
            raise place.refuse(f"isn't JSON: {error}", cure) from error
        if not isinstance(values, Mapping):
            problem = f"is {type(values).__name__}, not an object"
            raise place.refuse(problem, "write one JSON object on each line")
        refuse_missing(place, wanted, values)
        yield Row(place, values)


def csv_rows(path: Path, field: str, wanted: Sequence[str]) -> Iterator[Row]:
    """The values of each line below the first, which names the columns.

    Raises:
        RecipeError: a line can't be read or has more or fewer values than there are columns, or
            a column that is wanted is missing.
    """
    csv.field_size_limit(sys.maxsize)  # of the whole process; documents may be longer than 131072
    place = Place(field, str(path), "line", 1)
    content = (line for place, line in lines(path, field))
    rows = csv.reader(content, strict=True)
    try:
        names = [name.removeprefix("\ufeff") for name in next(rows, [])]
        refuse_missing(place, wanted, names)
        for values in rows:
            place = place._replace(number=rows.line_num)
            if len(values) not in (0, len(names)):
                problem = f"has {len(values)} values; there are {len(names)} columns"
                raise place.refuse(problem, "quote values that hold commas or line ends")
            if values:
                yield Row(place, dict(zip(names, values, strict=True)))
    except csv.Error as error:
        place = place._replace(number=rows.line_num)
        raise place.refuse(f"isn't CSV: {error}", "quote values as RFC 4180 says") from error


def parquet_rows(path: Path, field: str, wanted: Sequence[str]) -> Iterator[Row]:
    """The rows of a Parquet file, only the columns that are wanted.

    Raises:
        RecipeError: the file is damaged, or a column that is wanted is missing.
    """
    whole, number = Place(field, str(path)), 0
    with reading(whole), pq.ParquetFile(path, buffer_size=PARQUET_BUFFER, pre_buffer=False) as file:
        refuse_missing(whole, wanted, file.schema_arrow.names)
        for batch in file.iter_batches(PARQUET_ROWS, columns=list(wanted), use_threads=False):
            for values in _plain(batch):
                number += 1
                yield Row(Place(field, str(path), "row", number), values)


def _plain(batch: Any) -> Iterator[dict[str, Any]]:
    """Rows of a batch; text as bytes, because nothing says that it is UTF-8."""
    columns = []
    for column in batch.columns:
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        columns.append((column.cast(pa.large_binary()) if text else column).to_pylist())
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def refuse_missing(place: Place, wanted: Iterable[str], there: Iterable[str]) -> None:
    """Refuses what lacks a column.

    Raises:
        RecipeError: a column that is wanted isn't there.
    """
    there = list(there)
    for name in wanted:
        if name not in there:
            problem = f"has no column {name}; there are: {', '.join(there) or 'none'}"
            cure = "name them by column, or prompt and completion, or messages"
            raise place.refuse(problem, cure)


TABLES: Final[Mapping[str, Callable[[Path, str, Sequence[str]], Iterator[Row]]]] = {
    "jsonl": jsonl_rows,
    "csv": csv_rows,
    "parquet": parquet_rows,
}
"""By the kind of source."""
