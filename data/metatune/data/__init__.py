"""Text for the inner training: domains, splits, and batches as a pure function of (seed, step)."""

from metatune.data.batches import Batch, heldout_batches, sampled_batches, stratified_batches
from metatune.data.domains import Corpus, Domain, load
from metatune.data.shipped import SHIPPED, shipped_text
from metatune.data.tokenizers import ByteTokenizer, tokenizer

__all__ = [
    "SHIPPED",
    "Batch",
    "ByteTokenizer",
    "Corpus",
    "Domain",
    "heldout_batches",
    "load",
    "sampled_batches",
    "shipped_text",
    "stratified_batches",
    "tokenizer",
]
