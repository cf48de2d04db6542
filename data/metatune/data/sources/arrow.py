"""Tables of Arrow as rows of plain values; files of Arrow's own format.

Text comes as bytes, because nothing says that it is UTF-8; what a column holds as JSON is read.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from metatune.data.sources.files import reading
from metatune.data.sources.records import ROWS, Location, Row

MAGIC: Final = b"ARROW1"  # a file begins so, a stream doesn't


def arrow_rows(path: Path, field: str, wanted: Sequence[str]) -> Iterator[Row]:
    """The rows of an Arrow file or stream, only the columns that are wanted.

    Raises:
        RecipeError: the file is damaged, or a column that is wanted is missing.
    """
    whole, number = Location(field, str(path)), 0
    with reading(whole), pa.memory_map(str(path)) as file:
        for batch in _batches(file):
            whole.require(wanted, batch.schema.names)
            for values in plain_rows(batch.select(list(wanted))):
                number += 1
                yield Row(Location(field, str(path), "row", number), values)


def _batches(file: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    named = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    if not named:
        with pa.ipc.open_stream(file) as stream:
            yield from stream
        return
    with pa.ipc.open_file(file) as batches:
        for index in range(batches.num_record_batches):
            yield batches.get_batch(index)


def plain_rows(table: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table, a few of them plain values at a time."""
    for start in range(0, table.num_rows, ROWS):
        some = table.slice(start, ROWS)
        columns = [_plain(column) for column in some.columns]
        for values in zip(*columns, strict=True):
            yield dict(zip(table.schema.names, values, strict=True))


def _plain(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    raw, read = _raw(column.type), _reader(column.type)
    column = column if raw == column.type else column.cast(raw)
    try:
        values = column.to_pylist(maps_as_pydicts="strict")
    except KeyError as error:
        raise pa.ArrowInvalid(f"a map holds a key twice: {error}") from error
    return values if read is None else list(map(read, values))


def _raw(kind: pa.DataType) -> pa.DataType:
    """The type with bytes in place of text."""
    if isinstance(kind, pa.BaseExtensionType):
        return _raw(kind.storage_type)
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_list(kind):
        return pa.list_(_raw_field(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(_raw_field(kind.value_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_raw_field(kind.value_field), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([_raw_field(kind.field(i)) for i in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.map_(_raw_field(kind.key_field), _raw_field(kind.item_field))
    return kind


def _raw_field(field: pa.Field) -> pa.Field:
    return field.with_type(_raw(field.type))


def _reader(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """What turns a value of that type into what its JSON says, None where it holds none."""
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.json":
            return lambda value: None if value is None else json.loads(value)
        return _reader(kind.storage_type)
    if pa.types.is_struct(kind):
        readers = {kind.field(i).name: _reader(kind.field(i).type) for i in range(kind.num_fields)}
        if not any(readers.values()):
            return None
        return lambda value: (
            None
            if value is None
            else {key: read(value[key]) if read else value[key] for key, read in readers.items()}
        )
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        read = _reader(kind.value_type)
        return read and (lambda value: None if value is None else list(map(read, value)))
    return None
