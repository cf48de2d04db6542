"""Random directions in the coordinates of η, and the mean over them.

With E[v vᵀ] = I the estimate (dF·v) v is unbiased. Its mean over b directions has a relative
squared error of (N-1)/b for Rademacher directions, (N+1)/b for Gaussian ones, and N/b - 1 for
orthogonal ones, which is nothing for a whole basis. The derivative is linear in v: pairs v and -v
would say the same twice.

Source: Shen et al., Memory-Efficient Gradient Unrolling for Large-Scale Bi-level Optimization,
2024, section 3.1.
"""

from typing import Final, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from metatune.hypergrad.estimator import EstimatorError
from metatune.hypergrad.problem import PyTree

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


def draw(key: jax.Array | None, eta: PyTree, count: int, distribution: Distribution) -> jax.Array:
    """Random directions, [count, N]; those of orthogonal ones have length √N.

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


def mean(
    eta: PyTree, derivatives: jax.Array, directions: jax.Array, distribution: Distribution
) -> tuple[PyTree, PyTree]:
    """The mean of (dF·v) v over the directions, and its standard errors.

    Args:
        eta: meta-parameters η, whose coordinates they are.
        derivatives: dF·v of each direction, [b].
        directions: [b, N].
        distribution: of the directions.

    Returns:
        Two pytrees like η; None for the standard errors of a single direction.
    """
    _, unflatten = ravel_pytree(eta)
    samples = derivatives[:, None] * directions
    gradient = unflatten(jnp.mean(samples, axis=0))
    count, size = directions.shape
    if count == 1:
        return gradient, None
    errors = jnp.std(samples, axis=0, ddof=1) / jnp.sqrt(count).astype(samples.dtype)
    if distribution == "orthogonal":
        # Drawn without replacement from a basis whose samples add up to N times the gradient.
        errors = errors * jnp.sqrt(1 - count / size).astype(errors.dtype)
    return gradient, unflatten(errors)
