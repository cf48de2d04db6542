"""What JAX tells of the programs that it compiles."""

import jax
import jax.numpy as jnp

from metatune.fit.process.compiler import LARGE, Compiler
from metatune.hypergrad import programs


class Recorder(Compiler):
    """Remembers each program that is compiled."""

    def __init__(self):
        self.seen = []
        super().__init__()

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "now":
            self.seen.append(value)


def test_a_large_program_is_named_while_it_is_compiled():
    recorder = Recorder()

    def advance(x):
        return jnp.sin(x) + 2.5

    def small(x):
        return jnp.cos(x) + 2.5

    jax.jit(small)(jnp.ones(3))
    assert recorder.seen == [None]
    jax.jit(advance)(jnp.ones(3))
    assert recorder.seen == [None, "a training", None]
    jax.jit(advance)  # compiles nothing
    assert recorder.now is None


def test_the_names_are_those_of_programs():
    assert all(callable(getattr(programs, name)) for name in LARGE)
