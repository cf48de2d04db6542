"""Eigenbases of matrices that gather gradients, and their derivatives.

An eigenbasis is a function of its matrix like any other: the derivative of eigenvectors is that of
first order perturbation, that of a QR decomposition the rotation of Q. Where the matrix is zero
along some directions every basis of these is as good, and what LAPACK makes of rounding there is no
function of anything. So the columns for these are given, and made orthogonal to all before them:
what comes out is as smooth as what was given. Zero is what the rank of a matrix in NumPy holds for
zero.

Columns are in the order of falling eigenvalues, a derivative is that between two changes of it. Two
eigenvalues that rounding doesn't tell apart count as equal, and their eigenvectors turn as one.

LAPACK is asked for one matrix after the other: with jaxlib 0.10.2 trainings stood still on a CPU
where it was given stacks of them.

Source: Magnus, On Differentiating Eigenvalues and Eigenvectors, Econometric Theory, 1985; Walter &
Lehmann, On Evaluating Higher-Order Derivatives of the QR Decomposition, 2010.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Square = Float[Array, "*stacked side side"]
Diagonal = Float[Array, "*stacked side"]


def eigenbasis(gathered: Square) -> Square:
    """Orthonormal eigenvectors of a symmetric matrix, as columns.

    Args:
        gathered: positive semidefinite.
    """
    values, vectors = _eigh(gathered)
    frame = jax.random.normal(jax.random.key(0), gathered.shape[-2:], gathered.dtype)
    return _q(jnp.where(_zero(values)[..., None, :], frame, vectors))


def followed(gathered: Square, basis: Square) -> tuple[Square, Int[Array, "*stacked side"]]:
    """An eigenbasis by one step of power iteration from one that was near.

    Args:
        gathered: as of `eigenbasis`.
        basis: orthonormal columns.

    Returns:
        The new columns, and which column before each of them is in the place of.
    """
    moved = product(gathered, basis)
    values = jnp.sum(basis * moved, axis=-2)
    order = jnp.argsort(jnp.where(_zero(values), 0, values), axis=-1, descending=True)
    before, after = (jnp.take_along_axis(each, order[..., None, :], -1) for each in (basis, moved))
    _, r = _each(_qr_of_one, jax.lax.stop_gradient(after))
    left = jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1))
    return _q(jnp.where(_zero(left)[..., None, :], before, after)), order


def product(
    a: Float[Array, "*stacked rows inner"], b: Float[Array, "*stacked inner columns"]
) -> Float[Array, "*stacked rows columns"]:
    """`a @ b` in the precision of its numbers on every device: a basis has to stay orthonormal."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _zero(of: Diagonal) -> Bool[Array, "*stacked side"]:
    """Which are zero but for rounding."""
    largest = jnp.max(of, axis=-1, keepdims=True)
    return of <= of.shape[-1] * jnp.finfo(of.dtype).eps * largest


def _each(
    decompose: Callable[[Square], tuple[Float[Array, "..."], Float[Array, "..."]]], matrix: Square
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The two parts of each matrix's decomposition, one after the other."""
    stacked = matrix.shape[:-2]
    parts = jax.vmap(decompose)(matrix.reshape(-1, *matrix.shape[-2:]))
    a, b = (part.reshape(*stacked, *part.shape[1:]) for part in parts)
    return a, b


@jax.custom_batching.sequential_vmap
def _eigh_of_one(matrix: Square) -> tuple[Diagonal, Square]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


@jax.custom_batching.sequential_vmap
def _qr_of_one(matrix: Square) -> tuple[Square, Square]:
    q, r = jnp.linalg.qr(matrix)
    return q, r


@jax.custom_jvp
def _eigh(matrix: Square) -> tuple[Diagonal, Square]:
    """Eigenvalues, falling, and eigenvectors."""
    values, vectors = _each(_eigh_of_one, matrix)
    return values[..., ::-1], vectors[..., ::-1]


@_eigh.defjvp
def _(
    primals: tuple[Square], tangents: tuple[Square]
) -> tuple[tuple[Diagonal, Square], tuple[Diagonal, Square]]:
    values, vectors = _eigh(*primals)
    turned = product(product(vectors.mT, tangents[0]), vectors)
    gaps = values[..., None, :] - values[..., :, None]
    scale = jnp.max(jnp.abs(values), axis=-1)[..., None, None]
    equal = jnp.abs(gaps) <= gaps.shape[-1] * jnp.finfo(gaps.dtype).eps * scale
    rotation = jnp.where(equal, 0, turned / jnp.where(equal, 1, gaps))
    moved = jnp.diagonal(turned, axis1=-2, axis2=-1)
    return (values, vectors), (moved, product(vectors, rotation))


@jax.custom_jvp
def _q(matrix: Square) -> Square:
    """Q of the QR decomposition of a matrix that has an inverse."""
    return _each(_qr_of_one, matrix)[0]


@_q.defjvp
def _(primals: tuple[Square], tangents: tuple[Square]) -> tuple[Square, Square]:
    # That of JAX has a term more, which is zero for a square matrix but for much rounding.
    q, r = _each(_qr_of_one, *primals)
    turned = product(q.mT, tangents[0])
    below = jnp.tril(_over(turned, r), -1)
    return q, product(q, below - below.mT)


def _over(b: Square, r: Square) -> Square:
    """`b r⁻¹` of an upper triangular r, one matrix after the other, and its derivatives so, too."""

    def solved(r: Square, b: Square, transposed: bool) -> Square:
        one = _over_transposed if transposed else _over_one
        return jax.vmap(one)(*(x.reshape(-1, *x.shape[-2:]) for x in (r, b))).reshape(b.shape)

    return jax.lax.custom_linear_solve(
        lambda x: product(x, r),
        b,
        lambda _, b: solved(r, b, False),
        transpose_solve=lambda _, b: solved(r, b, True),
    )


@jax.custom_batching.sequential_vmap
def _over_one(r: Square, b: Square) -> Square:
    return jax.lax.linalg.triangular_solve(r, b)


@jax.custom_batching.sequential_vmap
def _over_transposed(r: Square, b: Square) -> Square:
    return jax.lax.linalg.triangular_solve(r, b, transpose_a=True)
