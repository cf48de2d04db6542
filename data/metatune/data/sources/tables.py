"""Files of records, row by row: JSON lines, CSV, Parquet."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from metatune.data.sources.files import lines, reading
from metatune.data.sources.records import ROWS, Location, Row

PARQUET_BUFFER: Final = 2**20  # bytes of a column that are read at a time


def jsonl_rows(path: Path, field: str, wanted: Sequence[str]) -> Iterator[Row]:
    """An object from each line that isn't blank.

    A key that an object lacks is null there, as in a table; one that the first `ROWS` objects lack,
    or all of a shorter file, is no column.

    Raises:
        RecipeError: a line isn't a JSON object, or there is no such column as is wanted.
    """
    there, number = dict[str, None](), 0
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
        number += 1
        if number <= ROWS:
            there |= dict.fromkeys(values)
        if number == ROWS:
            Location(field, str(path)).require(wanted, there)
        yield Row(place, values)
    if 0 < number < ROWS:
        Location(field, str(path)).require(wanted, there)


def csv_rows(path: Path, field: str, wanted: Sequence[str]) -> Iterator[Row]:
    """The values of each line below the first, which names the columns.

    Raises:
        RecipeError: a line can't be read or has more or fewer values than there are columns, or
            a column that is wanted is missing.
    """
    csv.field_size_limit(sys.maxsize)  # of the whole process; documents may be longer than 131072
    place = Location(field, str(path), "line", 1)
    content = (line for place, line in lines(path, field))
    rows = csv.reader(content, strict=True)
    try:
        names = next(rows, [])
        place.require(wanted, names)
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
    import pyarrow.parquet as pq  # here, as it takes long

    from metatune.data.sources.arrow import plain_rows

    whole, number = Location(field, str(path)), 0
    with reading(whole), pq.ParquetFile(path, buffer_size=PARQUET_BUFFER, pre_buffer=False) as file:
        whole.require(wanted, file.schema_arrow.names)
        for batch in file.iter_batches(ROWS, columns=list(wanted), use_threads=False):
            for values in plain_rows(batch.select(list(wanted))):
                number += 1
                yield Row(Location(field, str(path), "row", number), values)


def _arrow_rows(path: Path, field: str, wanted: Sequence[str]) -> Iterator[Row]:
    from metatune.data.sources.arrow import arrow_rows

    return arrow_rows(path, field, wanted)


TABLES: Final[Mapping[str, Callable[[Path, str, Sequence[str]], Iterator[Row]]]] = {
    "jsonl": jsonl_rows,
    "csv": csv_rows,
    "parquet": parquet_rows,
    "arrow": _arrow_rows,
}
"""By the kind of source."""
