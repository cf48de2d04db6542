"""Text as batches: sources, tokens, held-out splits, and batches that are a function of the step.

Knows numpy, no JAX.
"""

from metatune.data.batches import Batch, heldout_batches, sampled_batches, stratified_batches
from metatune.data.domains import Corpus, Domain, load
from metatune.data.shipped import SHIPPED, DamagedCorpus, ShippedCorpus, shipped_text
from metatune.data.tokenizers import TOKENIZERS, ByteTokenizer, tokenizer

__all__ = [
    "SHIPPED",
    "TOKENIZERS",
    "Batch",
    "ByteTokenizer",
    "Corpus",
    "DamagedCorpus",
    "Domain",
    "ShippedCorpus",
    "heldout_batches",
    "load",
    "sampled_batches",
    "shipped_text",
    "stratified_batches",
    "tokenizer",
]
