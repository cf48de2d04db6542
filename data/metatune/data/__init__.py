"""Text as batches: sources, tokens, held-out splits, and batches that are a function of the step.

Knows numpy, no JAX.
"""

from metatune.data.batches import (
    Batch,
    Part,
    heldout_batches,
    sampled_batches,
    stratified_batches,
)
from metatune.data.cache import CacheError
from metatune.data.domains import Corpus, Domain, load, look
from metatune.data.shipped import SHIPPED, DamagedCorpus, ShippedCorpus, shipped_text
from metatune.data.sources import TokenClass
from metatune.data.statistics import FEW_REPEATS, Statistics
from metatune.data.tokenized import TokenizingProgress
from metatune.data.tokenizers import (
    ByteTokenizer,
    Tokenizer,
    dated,
    remarks,
    tokenizer,
    tokenizer_of,
)

__all__ = [
    "FEW_REPEATS",
    "SHIPPED",
    "Batch",
    "ByteTokenizer",
    "CacheError",
    "Corpus",
    "DamagedCorpus",
    "Domain",
    "Part",
    "TokenizingProgress",
    "ShippedCorpus",
    "Statistics",
    "TokenClass",
    "Tokenizer",
    "dated",
    "heldout_batches",
    "load",
    "look",
    "remarks",
    "sampled_batches",
    "shipped_text",
    "stratified_batches",
    "tokenizer",
    "tokenizer_of",
]
