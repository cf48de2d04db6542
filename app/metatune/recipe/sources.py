"""Which fields of a domain's source say where its documents are, and which what is in them."""

from collections.abc import Mapping
from typing import Final

KINDS: Final = ("shipped", "path", "jsonl", "parquet", "csv", "arrow", "dataset", "saved")
"""Where documents are."""

COLUMNS: Final = ("column", "prompt", "completion", "messages", "input_ids")
"""What the columns of a record are."""

MASKS: Final = ("labels", "loss_mask")
"""Which tokens of `input_ids` count."""

OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "config": frozenset({"dataset"}),
    "split": frozenset({"dataset", "saved"}),
    "revision": frozenset({"dataset"}),
    "streaming": frozenset({"dataset"}),
    **dict.fromkeys((*COLUMNS, *MASKS, "label"), frozenset(KINDS[2:])),
}
"""Which kinds of source an option goes with."""
