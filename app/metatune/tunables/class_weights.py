"""Loss weights of classes of tokens (prompt and completion, early and late, ...), by window.

Their mean over the tokens of the training data is one, so that they can't stand in for a learning
rate. The shares of the classes that this takes are fixed: those of the predicted training tokens at
the mixture that the recipe starts with. So a batch's loss stays a sum over its tokens, which
micro-batches and devices may share, and which doesn't depend on what else the batch happens to
hold.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from metatune.hypergrad.shapes import Scalar, StepLike
from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError, unknown
from metatune.tunables.hyper import Hyper, Setting, TrainingTokens
from metatune.tunables.token_classes import TokenClasses
from metatune.tunables.windows import window_of

PATH = "tune.loss_weights"


@dataclass(frozen=True)
class TunableClassWeights:
    """`w_t = exp η[window of t] / Σ_c s_c exp η_c[window of t]` over classes c of shares s.

    Attributes:
        classes: that tokens are put into.
        occurring: numbers of those that occur in the training data.
        shares: of the predicted training tokens, by occurring class; they sum to one.
        start: weights that the search starts from, likewise, not normalised.
        windows: how many windows.
        steps: horizon of the inner training.
    """

    classes: TokenClasses
    occurring: tuple[int, ...]
    shares: tuple[float, ...]
    start: tuple[float, ...]
    windows: int
    steps: int
    key: str = "loss_weights"

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the occurring classes."""
        return tuple(self.classes.names[number] for number in self.occurring)

    def initial(self) -> Float[Array, "{self.windows} {len(self.occurring)}"]:
        """Logarithms of the starting weights, [windows, classes]."""
        return jnp.tile(jnp.log(jnp.asarray(self.start, jnp.float32)), (self.windows, 1))

    def apply(
        self,
        eta: Float[Array, "{self.windows} {len(self.occurring)}"],
        step: StepLike,
        hyper: Hyper,
    ) -> Hyper:
        """Sets the weights of this window, [all classes]; those of absent classes are one."""
        logs = eta[window_of(step, self.windows, self.steps)]
        # The largest cancels out, and so do its derivatives.
        logs = logs - jax.lax.stop_gradient(jnp.max(logs))
        # Σ s exp η, so written that equal weights are exactly one whatever the shares' rounding.
        mean = 1 + jnp.sum(jnp.asarray(self.shares, logs.dtype) * jnp.expm1(logs))
        weights = jnp.ones(len(self.classes.names), logs.dtype)
        weights = weights.at[np.asarray(self.occurring)].set(jnp.exp(logs) / mean)
        return hyper._replace(class_weights=weights)

    def penalty(self, eta: Float[Array, "{self.windows} {len(self.occurring)}"]) -> Scalar:
        """None."""
        return jnp.zeros((), eta.dtype)


def build(spec: schema.LossWeightsSpec, setting: Setting) -> TunableClassWeights | None:
    """The tunable of a recipe's `tune.loss_weights` of tokens; None before the data is read.

    Raises:
        RecipeError: fewer than two classes occur, or not all of position or frequency; one that
            doesn't is given a weight, or the mixture that is tuned too says the same.
    """
    if setting.tokens is None:
        return None
    faults = list(_faults(spec, setting.tokens))
    if faults:
        raise RecipeError("tune", faults)
    within = setting.tokens.of_class / setting.tokens.of_class.sum(axis=1, keepdims=True)
    shares = np.asarray(setting.tokens.mixture) @ within
    classes, occurring = setting.tokens.classes, tuple(map(int, np.flatnonzero(shares)))
    given = spec.initial or {}
    return TunableClassWeights(
        classes,
        occurring,
        tuple(float(shares[number]) for number in occurring),
        tuple(given.get(classes.names[number], 1.0) for number in occurring),
        spec.windows,
        setting.steps,
    )


def _faults(spec: schema.LossWeightsSpec, tokens: TrainingTokens) -> Iterable[Fault]:
    total, names = tokens.of_class.sum(axis=0), tokens.classes.names
    counted = (f"{n:,} of class {name}" for n, name in zip(total, names, strict=True) if n)
    there = f"the training data has {', '.join(counted)}"
    absent = {name for n, name in zip(total, names, strict=True) if not n}
    if tokens.classes.table is not None:
        for name in names:
            if name in absent:
                problem = f"no token is of class {name}: {there}"
                yield Fault(f"{PATH}.buckets", len(names), problem, "take fewer")
    elif len(absent) > len(names) - 2:
        more = (
            "labels that differ" if spec.per == "label" else "prompts and completions, or messages"
        )
        cure = f"give domains with {more}, or take {PATH} out"
        yield Fault(f"{PATH}.per", spec.per, f"needs two classes of tokens: {there}", cure)
    for name, weight in (spec.initial or {}).items():
        if name not in names:
            yield unknown(f"{PATH}.initial.{name}", weight, spec.per, name, names)
        if tokens.classes.table is None and name in absent:
            problem = f"no token is of this class: {there}"
            yield Fault(f"{PATH}.initial.{name}", weight, problem, "take it out")
    if tokens.mixture_is_tuned and not _connected(tokens.of_class > 0):
        problem = (
            "tune.mixture is tuned too, and some domains share no class with the others: both "
            f"weigh these, the same number twice; {there}"
        )
        yield Fault(f"{PATH}.per", spec.per, problem, f"take out {PATH} or tune.mixture")


def _connected(occurs: Bool[np.ndarray, "domains classes"]) -> bool:
    """Whether classes link all domains.

    Args:
        occurs: whether a domain has tokens of a class.
    """
    linked = occurs @ occurs.T
    for _ in linked:
        linked = linked @ linked
    return bool(linked.all())
