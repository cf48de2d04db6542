"""Random directions in the coordinates of η, and the mean over them.

With E[v vᵀ] = I the estimate (dF·v) v is unbiased. Its mean over b directions has a relative
squared error of (N-1)/b for Rademacher directions, (N+1)/b for Gaussian ones, and N/b - 1 for
orthogonal ones, which is nothing for a whole basis. The derivative is linear in v: pairs v and -v
would say the same twice.

With a control variate c that doesn't depend on the directions, (dF·v - c·v) v + c is unbiased too,
and its error is relative to dF - c in place of dF. Taken from the estimates before, c follows dF
where that moves slowly.

Sources: Shen et al., Memory-Efficient Gradient Unrolling for Large-Scale Bi-level Optimization,
2024, section 3.1; Hanzely, Mishchenko & Richtárik, SEGA: Variance Reduction via Gradient Sketching,
2018, equations 4 and 6 (there with directions of a whole basis).
"""

from typing import Final, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key

from metatune.hypergrad.estimator import EstimatorError
from metatune.hypergrad.shapes import Eta

Distribution = Literal["rademacher", "gaussian", "orthogonal"]
DISTRIBUTIONS: Final = ("rademacher", "gaussian", "orthogonal")


def refuse_unknown(distribution: str) -> None:
    """Refuses what is no distribution.

    Raises:
        ValueError: it is none.
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(
            f"distribution = {distribution!r}: must be one of {', '.join(DISTRIBUTIONS)}"
        )


def draw(
    key: Key[Array, ""] | None, eta: Eta, count: int, distribution: Distribution
) -> Float[Array, "{count} N"]:
    """Random directions; those of orthogonal ones have length √N.

    Args:
        key: where they come from.
        eta: meta-parameters η, in whose N coordinates they are.
        count: how many.
        distribution: of which.

    Raises:
        EstimatorError: no key, or more orthogonal directions than coordinates.
    """
    if key is None:
        raise EstimatorError(
            "random directions need a key: hypergradient(..., key=jax.random.key(SEED)), another "
            "for each estimate"
        )
    flat, _ = ravel_pytree(eta)
    shape, dtype = (count, len(flat)), flat.dtype
    if distribution == "rademacher":
        return jax.random.rademacher(key, shape, dtype)
    normal = jax.random.normal(key, shape, dtype)
    if distribution == "gaussian":
        return normal
    if count > len(flat):
        raise EstimatorError(
            f"directions = {count}: there are no more than {len(flat)} orthogonal ones, as many as "
            f"meta-parameters; take {len(flat)}, which is exact, or another distribution"
        )
    basis, triangle = jnp.linalg.qr(normal.T)
    # Signs that make the basis uniform (Mezzadri, How to generate random matrices, 2007, eq. 5.2).
    return (basis * jnp.sign(jnp.diagonal(triangle))[None, :]).T * jnp.sqrt(len(flat)).astype(dtype)


def relative_variance(distribution: Distribution, count: int, size: int) -> float:
    """The squared error of a mean over `count` directions, over the squared norm of the gradient.

    Args:
        distribution: of the directions.
        count: how many, b.
        size: number of coordinates, N.
    """
    match distribution:
        case "rademacher":
            return (size - 1) / count
        case "gaussian":
            return (size + 1) / count
        case "orthogonal":
            return size / count - 1


def mean(
    eta: Eta,
    derivatives: Float[Array | np.ndarray, "b"],
    directions: Float[Array, "b N"],
    distribution: Distribution,
    control: Eta | None = None,
    kept: Bool[Array | np.ndarray, "b"] | None = None,
) -> tuple[Eta, Eta | None]:
    """The mean of (dF·v - c·v) v + c over the directions, and its standard errors.

    Args:
        eta: meta-parameters η, whose coordinates they are.
        derivatives: dF·v of each direction.
        directions: v, a row each.
        distribution: of the directions.
        control: the control variate c, a pytree like η that doesn't depend on them; None for zero.
        kept: which of them to take the mean over; None for all.

    Returns:
        Two pytrees like η; None for the standard errors of a single direction. Not a number where
        no direction is kept, nor the standard errors where a single one is.
    """
    _, unflatten = ravel_pytree(eta)
    if control is not None:
        derivatives = derivatives - directions @ ravel_pytree(control)[0]
    samples = derivatives[:, None] * directions
    drawn, size = directions.shape
    found, of_kept, count = jnp.mean(samples, axis=0), 1.0, drawn
    if kept is not None:  # factors of one where all are
        count = jnp.sum(kept)
        samples = jnp.where(kept[:, None], samples, 0)
        found = jnp.mean(samples, axis=0) * (drawn / count).astype(samples.dtype)
        samples = jnp.where(kept[:, None], samples, found)
        of_kept = jnp.sqrt((drawn - 1) / (count - 1)).astype(samples.dtype)
    gradient = unflatten(found)
    if control is not None:
        gradient = jax.tree.map(jnp.add, gradient, control)
    if drawn == 1:
        return gradient, None
    errors = jnp.std(samples, axis=0, ddof=1) / jnp.sqrt(count).astype(samples.dtype) * of_kept
    if distribution == "orthogonal":
        # Drawn without replacement from a basis whose samples add up to N times the gradient.
        errors = errors * jnp.sqrt(1 - count / size).astype(errors.dtype)
    return gradient, unflatten(errors)


def next_control(control: Eta, gradient: Eta, distribution: Distribution, count: int) -> Eta:
    """The control variate for the next estimate: the last one, moved towards this estimate.

    The step, 1 / (1 + r) with the relative variance r, is the one after which c is expected to be
    nearest to a gradient that rests: its squared distance shrinks by r / (1 + r).

    Args:
        control: of this estimate.
        gradient: the estimate.
        distribution: of its directions.
        count: how many they were.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(control))
    step = 1 / (1 + relative_variance(distribution, count, size))
    return jax.tree.map(lambda c, g: c + step * (g - c), control, gradient)
