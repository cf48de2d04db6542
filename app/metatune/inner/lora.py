"""LoRA: a trained product of two thin matrices beside each frozen one, `W + (alpha / rank) B A`.

A is [rank, in] and B is [out, rank], whatever the layout of W, under the names that PEFT writes. A
starts normal and B zero, so that a training starts from the model as it is.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, section 4.1.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Key

from metatune.models import LORA_A, LORA_B, ParameterNames
from metatune.recipe import schema
from metatune.recipe.faults import Fault

PREFIX = "base_model.model."
"""What PEFT puts before the names of a model that it wraps."""


class Adapter(NamedTuple):
    """The adapters of one stacked leaf, that of the matrices of all layers.

    Attributes:
        layers: which layers have one.
        names: of those layers' matrices, in checkpoints.
        inputs: features that the matrix maps from.
        outputs: features that it maps to.
        transposed: whether the matrix is [in, out].
        rank: of B A.
        scale: alpha / rank.
    """

    layers: Bool[np.ndarray, "layers"]
    names: tuple[str, ...]
    inputs: int
    outputs: int
    transposed: bool
    rank: int
    scale: float

    def init(self, key: Key[Array, ""]) -> dict[str, Float32[Array, "adapted rows columns"]]:
        """A normal with deviation 1 / rank, as PEFT's `gaussian`, and B zero, by their keys."""
        count = len(self.names)
        a = jax.random.normal(key, (count, self.rank, self.inputs), jnp.float32) / self.rank
        return {LORA_A: a, LORA_B: jnp.zeros((count, self.outputs, self.rank), jnp.float32)}

    def parameter_names(self) -> dict[str, ParameterNames]:
        """What PEFT calls A and B."""
        modules = [f"{PREFIX}{name.removesuffix('.weight')}" for name in self.names]
        return {
            key: ParameterNames(tuple(f"{module}.{key}.weight" for module in modules), stacked=True)
            for key in (LORA_A, LORA_B)
        }

    def product(
        self, a: Float[Array, "adapted rank inputs"], b: Float[Array, "adapted outputs rank"]
    ) -> Float[Array, "adapted rows columns"]:
        """What is added to the matrices, `(alpha / rank) B A` in their layout, layer by layer."""
        product = self.scale * jnp.einsum("lor,lri->loi", b, a, precision="highest")
        return product.swapaxes(1, 2) if self.transposed else product


def rank_fault(lora: schema.LoraSpec, adapters: Mapping[tuple[str, ...], Adapter]) -> list[Fault]:
    """A fault if the rank of B A is beyond that of a matrix that it is added to."""
    shapes = {adapter.names[0]: (adapter.outputs, adapter.inputs) for adapter in adapters.values()}
    name, shape = min(shapes.items(), key=lambda item: min(item[1]), default=("", (lora.rank,)))
    if lora.rank <= min(shape):
        return []
    problem = f"must be at most {min(shape)}, the rank that {name}, {shape[0]} x {shape[-1]}, has"
    return [Fault("inner.lora.rank", lora.rank, problem, "lower it")]
