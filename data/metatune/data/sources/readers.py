"""Sources of the recipe, opened: one function for each kind of source."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from metatune.data.documents import cut
from metatune.data.shipped import SHIPPED, shipped_text
from metatune.data.sources import hub
from metatune.data.sources.columns import to_records, wanted_columns
from metatune.data.sources.files import content_hash, find
from metatune.data.sources.records import Location, Record, Row
from metatune.data.sources.tables import TABLES
from metatune.data.sources.text import text_records
from metatune.data.sources.unicode import Policy
from metatune.data.tokenizers import Tokenizer
from metatune.recipe.faults import RecipeError, unknown
from metatune.recipe.paths import joined
from metatune.recipe.schema import SourceSpec
from metatune.recipe.sources import KINDS


@dataclass(frozen=True)
class Reader:
    """A source that is ready to be read.

    Attributes:
        place: the field of the recipe that names the source, and what it says.
        records: the documents, from the first, anew for each call.
        identity: what its content is: equal identities mean equal records. May read all of it.
    """

    place: Location
    records: Callable[[], Iterator[Record]]
    identity: Callable[[], str]


def open_source(
    name: str, source: SourceSpec, policy: Policy, tokenizer: Tokenizer | None
) -> Reader | None:
    """Opens a domain's source and looks at its beginning.

    Args:
        name: the domain's.
        source: what the recipe says of it.
        policy: what to do about text that isn't UTF-8.
        tokenizer: for sources of messages.

    Returns:
        None where the recipe doesn't name one place, which is a fault of its own.

    Raises:
        RecipeError: there is no such source, it holds no text, or its beginning can't be read.
    """
    kinds = [kind for kind in KINDS if getattr(source, kind) is not None]
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    place = Location(f"{joined('data.domains', name)}.{kind}", _words(getattr(source, kind)))
    reader = OPENERS[kind](place, source, policy, tokenizer)
    if kind != "shipped":  # told by its hash, and decompressed only where its tokens aren't kept
        records = reader.records()
        if not any(record.ready or record.text.strip() for record in records):
            raise place.refuse("holds no text", "give a source with text in it")
    return reader


def _words(said: str | Iterable[str]) -> str:
    return said if isinstance(said, str) else ", ".join(said)


def _open_shipped(
    place: Location, source: SourceSpec, policy: Policy, tokenizer: Tokenizer | None
) -> Reader:
    if place.source not in SHIPPED:
        corpora = list(SHIPPED)
        fault = unknown(place.field, place.source, "shipped corpus", place.source, corpora)
        raise RecipeError("data", [fault])

    def records() -> Iterator[Record]:
        content = shipped_text(place.source).encode("utf-8")
        return (Record(document.decode("utf-8")) for document in cut([content]))

    return Reader(place, records, lambda: SHIPPED[place.source].sha256)


def _open_text(
    place: Location, source: SourceSpec, policy: Policy, tokenizer: Tokenizer | None
) -> Reader:
    paths = find(place.field, source.path or ())
    return Reader(
        place,
        lambda: text_records(paths, place.field, policy),
        lambda: content_hash(paths, place.field),
    )


def _open_table(
    place: Location, source: SourceSpec, policy: Policy, tokenizer: Tokenizer | None
) -> Reader:
    kind = place.field.rpartition(".")[2]
    paths, wanted = find(place.field, getattr(source, kind)), wanted_columns(source)

    def records() -> Iterator[Record]:
        rows = chain.from_iterable(TABLES[kind](path, place.field, wanted) for path in paths)
        return to_records(rows, source, policy, tokenizer)

    return Reader(place, records, lambda: content_hash(paths, place.field))


def _open_dataset(
    place: Location, source: SourceSpec, policy: Policy, tokenizer: Tokenizer | None
) -> Reader:
    opened = hub.open_dataset(source, place)
    return _of_dataset(
        place, source, policy, tokenizer, opened, lambda: hub.identity(source, opened)
    )


def _open_saved(
    place: Location, source: SourceSpec, policy: Policy, tokenizer: Tokenizer | None
) -> Reader:
    opened = hub.open_saved(source, place)
    paths = find(place.field, f"{place.source}/**")
    return _of_dataset(
        place, source, policy, tokenizer, opened, lambda: content_hash(paths, place.field)
    )


def _of_dataset(
    place: Location,
    source: SourceSpec,
    policy: Policy,
    tokenizer: Tokenizer | None,
    opened: Any,
    identity: Callable[[], str],
) -> Reader:
    def records() -> Iterator[Record]:
        rows: Iterator[Row] = hub.dataset_rows(opened, place, wanted_columns(source))
        return to_records(rows, source, policy, tokenizer)

    return Reader(place, records, identity)


OPENERS: Final[Mapping[str, Callable[[Location, SourceSpec, Policy, Tokenizer | None], Reader]]] = {
    "shipped": _open_shipped,
    "path": _open_text,
    "jsonl": _open_table,
    "parquet": _open_table,
    "csv": _open_table,
    "arrow": _open_table,
    "dataset": _open_dataset,
    "saved": _open_saved,
}
"""By the kind of source; a new kind is a new row, and a field of the recipe's `Source`."""
