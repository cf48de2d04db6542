"""The coordinate check: whether activations move alike at every size, as a rule promises.

A few steps of training move every activation. Where a rule is right, by how much doesn't depend on
the width or the depth: on a log-log plot the size of the move against the size of the model has
slope zero. A slope above says that larger models run away at the rates of the small one, one below
that they hardly learn.

Source: Yang et al., 2022, arXiv 2203.03466, appendix D.1; for depth Dey et al., 2025, arXiv
2505.01618, figure 7.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Int

from metatune.inner import optimizers
from metatune.models import LanguageModel, ParameterNames, build
from metatune.recipe.schema import GroupsSpec, InnerOptimizerSpec
from metatune.transfer.carried import factors_of
from metatune.transfer.enlarging import enlarged
from metatune.transfer.factors import Factor, Factors
from metatune.transfer.rules.rule import Axis
from metatune.transfer.sizes import of_model
from metatune.transfer.stepping import kinds_of
from metatune.tunables import Hyper
from metatune.tunables.optimizer_groups import per_leaf

STREAM: Final = "residual stream"
LOGITS: Final = "logits"
LAST_NORM: Final = ("model", "norm")

FLAT: Final = 0.05
"""A slope this close to zero is none."""


class Check(NamedTuple):
    """What is trained.

    Attributes:
        config: fields of the proxy's `config.json`, with its vocabulary.
        rule: that the others follow.
        optimizer: of the proxy, at whose peaks its parameters are trained throughout.
    """

    config: Mapping[str, Any]
    rule: str
    optimizer: InnerOptimizerSpec


def moves(
    check: Check,
    config: Mapping[str, Any],
    batches: Int[np.ndarray, "steps batch length"],
    seeds: Sequence[int],
) -> dict[str, float]:
    """How far activations moved from their fresh values after a step on each batch.

    Args:
        check: the proxy, and the rule.
        config: the model to train; the proxy's own is trained as it is.
        batches: tokens, the last of a sequence only predicted.
        seeds: of fresh weights.

    Returns:
        Root mean square over tokens of the last batch, features and seeds, by what moved.
    """
    # With remat the blocks are one loop: a deep model compiles as fast as a shallow one.
    proxy, model = (build(each, remat=True) for each in (check.config, config))
    steps = len(batches)
    sides = (of_model("proxy", proxy, steps=steps), of_model("target", model, steps=steps))
    kinds = kinds_of(check.optimizer, model.names())
    factors = factors_of(kinds, *sides, check.rule)
    setting = _Setting(check, factors, model)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    found = jax.jit(_squares, static_argnums=(0, 1))(model, setting, jnp.asarray(batches), keys)
    return {name: float(np.sqrt(np.mean(squares))) for name, squares in found.items()}


class Slope(NamedTuple):
    """How moves grow with the size of the model.

    Attributes:
        moves: at each size.
        slope: of the line through their logarithms.
    """

    moves: tuple[float, ...]
    slope: float

    @property
    def flat(self) -> bool:
        """Whether they don't."""
        return abs(self.slope) <= FLAT


def slopes(
    check: Check,
    axis: Axis,
    times: Sequence[int],
    batches: Int[np.ndarray, "steps batch length"],
    seeds: Sequence[int],
) -> dict[str, Slope]:
    """How the moves of activations grow along an axis, by what moved.

    Args:
        check: the proxy, and the rule.
        axis: what grows.
        times: how many times the proxy's.
        batches: as of `moves`.
        seeds: likewise.
    """
    found = [moves(check, enlarged(check.config, **{axis: each}), batches, seeds) for each in times]
    columns = {name: tuple(each[name] for each in found) for name in found[0]}
    return {name: Slope(column, slope(times, column)) for name, column in columns.items()}


def slope(sizes: Sequence[float], found: Sequence[float]) -> float:
    """That of the line through the logarithms, by least squares.

    >>> round(slope([1, 2, 4], [3.0, 6.0, 12.0]), 6)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(found), 1)[0])


class _Setting:
    """The numbers of one training."""

    def __init__(self, check: Check, factors: Factors, model: LanguageModel):
        self.check, self.factors = check, factors
        self.names = model.names()
        self.shapes = model.init_shapes()

    def tree(self, of: Callable[[Factor], float], times: Any = None) -> Any:
        """A number of each parameter as a tree that broadcasts against the parameters.

        Args:
            of: the number, from the parameter's factors.
            times: a number of each leaf that it is multiplied by; None for none.
        """

        def leaf(named: ParameterNames, shape: jax.ShapeDtypeStruct, by: float = 1.0) -> jax.Array:
            values = [by * of(self.factors.parameters[name]) for name in named.names]
            layers = (len(values),) if named.stacked else ()
            ones = (1,) * (len(shape.shape) - len(layers))
            return jnp.asarray(values, jnp.float32).reshape(*layers, *ones)

        rest = () if times is None else (times,)
        return jax.tree.map(leaf, self.names, self.shapes, *rest)

    def rates(self) -> Any:
        """The learning rate of each parameter."""
        optimizer = self.check.optimizer
        peaks = (
            per_leaf(optimizer, self.names, "learning_rate")
            if isinstance(optimizer, GroupsSpec)
            else jax.tree.map(lambda _: optimizer.learning_rate, self.names)
        )
        return self.tree(lambda factor: factor.learning_rate, peaks)


def _squares(
    model: LanguageModel,
    setting: _Setting,
    batches: Int[Array, "steps batch length"],
    keys: jax.Array,
) -> dict[str, jax.Array]:
    """Mean squares of the moves, [seeds]."""
    return jax.vmap(lambda key: _squares_of(model, setting, batches, key))(keys)


def _squares_of(
    model: LanguageModel,
    setting: _Setting,
    batches: Int[Array, "steps batch length"],
    key: jax.Array,
) -> dict[str, jax.Array]:
    check = setting.check
    inner = optimizers.build(check.optimizer, setting.names, model.config.transposed)
    params = jax.tree.map(
        lambda fresh, factor: fresh * factor,
        model.init(key),
        setting.tree(lambda factor: factor.initial),
    )
    hyper = Hyper(
        learning_rate=setting.rates(),
        mixture=jnp.ones(1),
        loss_weights=jnp.ones(1),
        eps_scale=setting.tree(lambda factor: factor.eps),
    )

    def loss(params: Any, batch: jax.Array) -> jax.Array:
        logs = jax.nn.log_softmax(_activations(model, params, batch[:, :-1])[LOGITS])
        return -jnp.mean(jnp.take_along_axis(logs, batch[:, 1:, None], axis=-1))

    def step(carry: Any, batch: jax.Array) -> tuple[Any, None]:
        return inner.update(jax.grad(loss)(carry[0], batch), carry[1], carry[0], hyper), None

    (after, _), _ = jax.lax.scan(step, (params, inner.init(params)), batches)
    seen = batches[-1][:, :-1]
    first, last = (_activations(model, each, seen) for each in (params, after))
    return {name: jnp.mean((last[name] - first[name]) ** 2) for name in first}


def _activations(
    model: LanguageModel, params: Any, tokens: Int[Array, "batch seq"]
) -> dict[str, jax.Array]:
    """What is watched, [batch, seq, ...]."""
    with _watched() as seen:
        logits = model.logits(params, tokens)
    return {STREAM: seen[0], LOGITS: logits}


@contextmanager
def _watched() -> Iterator[list[jax.Array]]:
    """What the norm after the last block is given, while models are applied."""
    seen: list[jax.Array] = []

    def watch(called: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.module.path == LAST_NORM and context.method_name == "__call__":
            seen.append(args[0])
        return called(*args, **kwargs)

    with nn.intercept_methods(watch):
        yield seen
