"""Where documents come from: every kind of source gives records, one at a time."""

from metatune.data.sources.columns import has_classes
from metatune.data.sources.readers import Reader, open_source
from metatune.data.sources.records import Record, Span, TokenClass

__all__ = ["Reader", "Record", "Span", "TokenClass", "has_classes", "open_source"]
