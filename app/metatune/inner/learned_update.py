"""A learned update: the optimizer's direction d, corrected element by element.

    d' = m d,  m = exp(log M tanh(o / log M)),  o = w · tanh(W x + b)

What the network sees of an element, x, is free of scale: each of the gradient g, its decaying
means and the parameter is divided by its root-mean-square over the tensor, as in the paper, and
multiplied by the direction likewise divided. So it sees whether they agree with the step, and a
parameter is trained as its negative would be. The direction's own square and the decaying mean of
squared gradients over their means say how large both are, and `tanh(progress / scale - 1)` when.
All but the last are bounded by `a / sqrt(1 + a²)`.

Source: Metz et al., Practical tradeoffs between memory, compute, and performance in learned
optimizers, CoLLAs 2022, arXiv 2203.11860.
"""

from functools import partial
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from metatune.hypergrad.shapes import OptState, Params, Scalar
from metatune.models import ParameterNames
from metatune.tunables import Correction, Form, Networks
from metatune.tunables.shapes import Names

TINY: Final = 1e-12
"""Added to means about one, so that tensors of zeros have derivatives. Of less, second derivatives
there overflow float32."""


Rows = Float[Array, "tensors elements"]
"""Of each layer of a leaf a tensor in a row."""


class CorrectedState(NamedTuple):
    """State of `corrected`.

    Attributes:
        inner: of the optimizer.
        momenta: decaying means of the gradients, one for each decay.
        second_moment: decaying mean of the squared gradients.
    """

    inner: OptState
    momenta: tuple[Params, ...]
    second_moment: Params


def corrected(
    inner: optax.GradientTransformation, names: Names, form: Form, correction: Correction | None
) -> optax.GradientTransformation:
    """An optimizer's direction, corrected by networks.

    Means aren't corrected for their start at zero: the network doesn't see their scale.

    Args:
        inner: gives the direction.
        names: `ParameterNames` at the leaves of a tree like the parameters.
        form: of the learned update.
        correction: at this inner step; None to initialise alone.
    """

    def init(params: Params) -> CorrectedState:
        momenta = tuple(jax.tree.map(jnp.zeros_like, params) for _ in form.decays)
        return CorrectedState(inner.init(params), momenta, jax.tree.map(jnp.zeros_like, params))

    def update(
        grads: Params, state: CorrectedState, params: Params | None = None
    ) -> tuple[Params, CorrectedState]:
        if correction is None or params is None:
            raise ValueError("a learned update needs its networks and the parameters")
        directions, inner_state = inner.update(grads, state.inner, params)
        momenta = tuple(
            jax.tree.map(lambda m, g, decay=decay: decay * m + (1 - decay) * g, mean, grads)
            for decay, mean in zip(form.decays, state.momenta, strict=True)
        )
        decay = form.second_moment_decay
        second = jax.tree.map(
            lambda v, g: decay * v + (1 - decay) * g**2, state.second_moment, grads
        )
        found = jax.tree.map(
            partial(_of_leaf, form, correction),
            names,
            form.index,
            directions,
            grads,
            params,
            second,
            *momenta,
        )
        return found, CorrectedState(inner_state, momenta, second)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _of_leaf(
    form: Form,
    correction: Correction,
    leaf: ParameterNames,
    index: Int[np.ndarray | np.generic, "..."],
    direction: Float[Array, "*shape"],
    *arrays: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """The corrected direction of a leaf, each layer of it a tensor of its own."""
    layers = len(leaf.names)
    networks = jax.tree.map(lambda weights: weights[index.reshape(layers)], correction.networks)
    progress = correction.progress

    # What it computes on the way is as large as features and hidden layer for each element: in
    # reverse mode it is computed again, for a leaf at a time.
    @jax.checkpoint
    def of_rows(networks: Networks, direction: Rows, *arrays: Rows) -> Rows:
        return _rows(form, networks, progress, direction, *arrays)

    rows = of_rows(networks, *(array.reshape(layers, -1) for array in (direction, *arrays)))
    return rows.reshape(direction.shape)


def _rows(
    form: Form,
    networks: Networks,
    progress: Scalar,
    direction: Rows,
    gradient: Rows,
    parameter: Rows,
    second_moment: Rows,
    *momenta: Rows,
) -> Rows:
    """The corrected directions of tensors, a network for each."""
    own = _normalised(direction)
    seen = [_normalised(signed) * own for signed in (gradient, *momenta, parameter)]
    seen.append(own * own)
    second = _over(jnp.mean(jax.lax.stop_gradient(second_moment), 1, keepdims=True), second_moment)
    seen.append(second / (jnp.mean(second, axis=1, keepdims=True) + TINY))
    features = jnp.stack([a * jax.lax.rsqrt(1 + a * a) for a in seen], axis=1)
    of_elements, of_times = jnp.split(networks.hidden, [len(seen)], axis=1)
    times = jnp.tanh(progress / np.asarray(form.time_scales, progress.dtype) - 1)
    bias = networks.bias + jnp.einsum("f,tfh->th", times, of_times)
    hidden = jnp.tanh(jnp.einsum("tfn,tfh->thn", features, of_elements) + bias[:, :, None])
    output = jnp.einsum("thn,th->tn", hidden, networks.output)
    most = np.log(form.max_multiplier).astype(output.dtype)
    factors = jnp.exp(most * jnp.tanh(output / most))
    if form.keeps_size:
        scaled = _near_one(direction)
        factors = factors * jnp.sqrt(_mean_square(scaled) / _mean_square(factors * scaled))
    return direction * factors


def _normalised(x: Rows) -> Rows:
    """A tensor over its root-mean-square."""
    scaled = _near_one(x)
    return scaled * jax.lax.rsqrt(_mean_square(scaled))


def _near_one(x: Rows) -> Rows:
    """A tensor in a scale where nothing underflows, over a constant for its root-mean-square."""
    return _over(jnp.sqrt(jnp.mean(jax.lax.stop_gradient(x) ** 2, axis=1, keepdims=True)), x)


def _over(scale: Float[Array, "tensors 1"], x: Rows) -> Rows:
    """Tensors over their scales; those of zeros as they are."""
    return x / jnp.where(scale > 0, scale, 1)


def _mean_square(x: Rows) -> Float[Array, "tensors 1"]:
    return jnp.mean(x * x, axis=1, keepdims=True) + TINY
