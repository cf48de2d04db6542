"""Where documents come from: every kind of source gives records, one at a time."""

from metatune.data.sources.columns import has_classes
from metatune.data.sources.readers import Reader, open_source
from metatune.data.sources.records import ClassSpan, Record, TokenClass

__all__ = ["Reader", "Record", "ClassSpan", "TokenClass", "has_classes", "open_source"]
