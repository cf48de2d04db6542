"""The trainings that are measured, by the size of their model."""

from collections.abc import Mapping
from typing import NamedTuple

HEAD = 64
"""Features of an attention head; models too narrow for two of them have four smaller ones."""


class Shape(NamedTuple):
    """A Llama and its inner training.

    Attributes:
        vocab: rows of the embedding.
        width: features of the residual stream.
        hidden: features within an MLP.
        layers: blocks.
        batch: sequences of an inner batch, and of the outer one.
        sequence: tokens predicted in each.
        steps: inner steps T.
        tied: whether the embedding is the unembedding too.
    """

    vocab: int
    width: int
    hidden: int
    layers: int
    batch: int
    sequence: int
    steps: int
    tied: bool = False

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // HEAD if self.width >= 2 * HEAD else 4

    @property
    def parameters(self) -> int:
        """Parameters of the model."""
        block = 4 * self.width**2 + 3 * self.width * self.hidden + 2 * self.width
        embeddings = (1 if self.tied else 2) * self.vocab * self.width
        return embeddings + self.layers * block + self.width


AXES = ("layers", "sequence", "batch", "steps")
"""What of a shape can be varied; the size of the model is chosen by name."""

SIZES: Mapping[str, Shape] = {
    "0.5M": Shape(256, 96, 256, 4, 8, 128, 2),
    "1M": Shape(512, 128, 384, 4, 8, 256, 2),
    "5.3M": Shape(1024, 256, 704, 6, 8, 512, 2),
    "12M": Shape(4096, 256, 704, 12, 8, 512, 2),
    "46.9M": Shape(8192, 512, 1408, 12, 4, 1024, 2),
    "71.3M": Shape(32000, 512, 1408, 12, 8, 2048, 2),
    # Of the size of GPT-2 small: its MLP of two matrices, 3072 wide, is here one of three, 2048.
    "124M": Shape(50257, 768, 2048, 12, 64, 128, 16, tied=True),
    "500M": Shape(32000, 1280, 3712, 20, 4, 2048, 2),
}
