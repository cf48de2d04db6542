"""The memory of a compiled hypergradient, told apart by what it is for."""

import time
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax

from metatune.bench.sizes import Shape
from metatune.bench.variants import FLOAT, Variant
from metatune.bench.workload import estimate, initial, plain_step

TINY = {"batch": 1, "sequence": 8}
"""A batch whose activations are nothing beside the parameters."""


class ProgramMemory(NamedTuple):
    """Bytes of one hypergradient as one program, by XLA's compile-time analysis.

    Attributes:
        arguments: state, η and tokens.
        carry: states and saved gradients that the forward sweep leaves for the backward one.
        parameters: what else there is even for a batch of next to nothing: gradients, adjoints.
        activations: what batch and sequence add to that.
        block_inputs: one [batch, sequence, width] array a layer. The least that block remat keeps;
            of the activations, not besides them.
    """

    arguments: int
    carry: int
    parameters: int
    activations: int
    block_inputs: int

    @property
    def temp(self) -> int:
        """All that is needed besides the arguments."""
        return self.carry + self.parameters + self.activations


class CompiledProgram(NamedTuple):
    """A compiled program.

    Attributes:
        run: takes the arguments it was compiled for.
        compile_seconds: what compiling it took; less if it was found in JAX's cache.
    """

    run: Any
    compile_seconds: float

    @property
    def temp_bytes(self) -> int:
        """What it needs besides arguments and results."""
        return self.run.memory_analysis().temp_size_in_bytes


@lru_cache(maxsize=16)  # of a grid that varies batch or sequence, the tiny ones come back
def compile_hypergradient(shape: Shape, variant: Variant) -> CompiledProgram:
    """Compiles one hypergradient as one program."""
    given = jax.eval_shape(partial(initial, shape), jax.random.key(0))
    return _compiled(jax.jit(estimate(shape, variant)), *given)


def compile_plain_step(shape: Shape) -> CompiledProgram:
    """Compiles the unit of time, each block rematerialised; the state is donated."""
    eta, state, tokens, _ = jax.eval_shape(partial(initial, shape), jax.random.key(0))
    batch = jax.ShapeDtypeStruct(tokens.shape[1:], tokens.dtype)
    return _compiled(jax.jit(plain_step(shape, remat=True), donate_argnums=1), eta, state, batch)


def memory_of(shape: Shape, variant: Variant, program: CompiledProgram) -> ProgramMemory:
    """Tells a program's memory apart; compiles another one for a tiny batch, unless it has that."""
    tiny = shape._replace(**TINY)
    resting = (program if tiny == shape else compile_hypergradient(tiny, variant)).temp_bytes
    carry = variant.carry_bytes(shape)
    return ProgramMemory(
        arguments=program.run.memory_analysis().argument_size_in_bytes,
        carry=carry,
        parameters=resting - carry,
        activations=program.temp_bytes - resting,
        block_inputs=shape.layers * shape.batch * shape.sequence * shape.width * FLOAT,
    )


def _compiled(function: Any, *given: Any) -> CompiledProgram:
    began = time.perf_counter()
    run = function.lower(*given).compile()
    return CompiledProgram(run, time.perf_counter() - began)
