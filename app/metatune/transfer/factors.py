"""What a rule gives: factors of what a training uses of each parameter, and of its forward pass."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Factor:
    """Of one parameter, target over proxy.

    Attributes:
        learning_rate: of its rate.
        weight_decay: of its weight decay λ, where a step shrinks it by rate times λ.
        eps: of Adam's ε, that the root of the second moment is added to.
        initial: of the standard deviation of its fresh numbers, or of all where they are alike.
    """

    learning_rate: float = 1.0
    weight_decay: float = 1.0
    eps: float = 1.0
    initial: float = 1.0

    def times(self, other: "Factor") -> "Factor":
        """Both, one after the other."""
        return Factor(
            self.learning_rate * other.learning_rate,
            self.weight_decay * other.weight_decay,
            self.eps * other.eps,
            self.initial * other.initial,
        )

    def in_units(self, factor: float, turned: bool = False) -> "Factor":
        """The same for a parameter that is written `factor` times as large.

        A multiplier c before W is c W itself: its fresh numbers and its steps are c times as
        large, its gradient is one c-th, and rate times weight decay stays. So trainings in both
        units are the same to rounding (but for a clipping by the norm of all gradients), where the
        size of a step isn't that of the gradient: under Adam, and under Muon, whose ε is added to
        the norm of a momentum.

        Args:
            factor: c.
            turned: whether the rate is a share of the parameter's norm, which c is in already.
        """
        rate = 1.0 if turned else factor
        return self.times(Factor(rate, 1 / rate, 1 / factor, factor))


@dataclass(frozen=True)
class Factors:
    """Of a whole training, target over proxy.

    Attributes:
        parameters: by checkpoint name of the target.
        residual: of what each branch of a block adds to the residual stream.
        logits: of the logits.
        attention: of the attention scores.
        memory: of 1 - β of both of Adam's averages: 1/2 remembers twice as many updates. Of what
            is normalised after it was averaged it is none: Muon's momentum, and all of a
            hyperball's optimizer.
        unknown: what the rule needs and wasn't told: it is left as it is.
    """

    parameters: Mapping[str, Factor]
    residual: float = 1.0
    logits: float = 1.0
    attention: float = 1.0
    memory: float = 1.0
    unknown: tuple[str, ...] = ()

    def times(self, **factors: Mapping[str, Factor] | float) -> "Factors":
        """With further factors of some of these, by field."""
        changed = {
            name: {own: have.times(factor[own]) for own, have in self.parameters.items()}
            if isinstance(factor, Mapping)
            else getattr(self, name) * factor
            for name, factor in factors.items()
        }
        return replace(self, **changed)
