"""Which large program is being compiled."""

from collections.abc import Mapping
from typing import Final

import jax

LARGE: Final[Mapping[str, str]] = {
    "forward": "the sweep forward",
    "pullback": "the sweep back",
    "push": "the sweep with tangents",
    "objective": "the objective's gradient",
    "advance": "a training",
    "advance_each": "several trainings",
    "value": "the held-out loss",
    "value_each": "the held-out losses",
}
"""Of `metatune.hypergrad.programs`, those that take long to compile."""

TRACED: Final = "/jax/core/compile/jaxpr_trace_duration"
COMPILED: Final = "/jax/core/compile/backend_compile_duration"


class Compiler:
    """Which large program XLA compiles now, as JAX tells of it to whoever listens.

    JAX tells when a program has been traced and when it is compiled, with its function's name; what
    lies between is XLA's. There is one for a process, because nothing stops listening.
    """

    def __init__(self) -> None:
        """Listens from now on."""
        self.now: str | None = None
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def forget(self) -> None:
        """None is, as far as is known: one that was traced need not have been compiled."""
        self.now = None

    def _heard(self, event: str, duration_secs: float, **what: str | int) -> None:
        name = str(what.get("fun_name", "")).removeprefix("jit(").removesuffix(")")
        if event == TRACED and name in LARGE:
            self.now = LARGE[name]
        elif event == COMPILED and name in LARGE:
            self.now = None


COMPILER: Final = Compiler()
