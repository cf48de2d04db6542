"""Signatures of hypergrad, inner and tunables state types and shapes, which tests check."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shape_checks
from jax import ShapeDtypeStruct
from jaxtyping import Array, Float, PyTree, TypeCheckError, _typeguard

from metatune.hypergrad.forward.directions import mean
from metatune.inner.multi_token_head import second_next_losses
from metatune.tunables import TunableLossWeights

PROJECT = Path(__file__).parents[1]
PACKAGES = [PROJECT / "app/metatune" / name for name in ("hypergrad", "inner", "tunables")]

Floats = Float[Array, "..."] | Float[np.ndarray, "..."]

checked = pytest.mark.skipif(not shape_checks.ON, reason="shapes are checked in another run")


@checked
def test_hypergrad_refuses_a_wrong_shape():
    eta, directions = jnp.zeros(3), jnp.ones((2, 3))
    mean(eta, jnp.zeros(2), directions, "rademacher")
    with pytest.raises(TypeCheckError, match="parameter 'directions'"):
        mean(eta, jnp.zeros(5), directions, "rademacher")


@checked
def test_hypergrad_refuses_another_structure():
    eta, directions = {"a": jnp.zeros(3)}, jnp.ones((2, 3))
    mean(eta, jnp.zeros(2), directions, "rademacher", control={"a": jnp.ones(3)})
    with pytest.raises(TypeCheckError, match="parameter 'control'"):
        mean(eta, jnp.zeros(2), directions, "rademacher", control={"b": jnp.ones(3)})


@checked
def test_inner_refuses_a_wrong_shape():
    params = {"auxiliary_head": {"weight": jnp.zeros((4, 4))}}
    hidden, unembedding = jnp.zeros((2, 5, 4)), jnp.zeros((7, 4))

    def losses(targets):
        return second_next_losses(
            params, hidden, unembedding, targets, None, softcap=None, chunk=None
        )

    assert losses(jnp.zeros((2, 5), int)).shape == (2, 5)
    with pytest.raises(TypeCheckError, match="parameter 'targets'"):
        losses(jnp.zeros((2, 6), int))


@checked
def test_tunables_refuse_a_slice_of_another_tunable_also_in_a_compiled_program():
    weights = TunableLossWeights((1.0, 1.0), windows=3, steps=6)
    assert jax.jit(weights.penalty)(jnp.zeros((3, 2))) == 0
    with pytest.raises(TypeCheckError, match="parameter 'eta'"):
        jax.jit(weights.penalty)(jnp.zeros((2, 3)))


@pytest.mark.parametrize("leaf", [Floats, Floats | ShapeDtypeStruct, str, float, tuple[int, int]])
def test_leaves_of_trees_are_those_that_jaxtyping_itself_finds(leaf, monkeypatch):
    trees = [
        {"a": jnp.zeros((2, 3)), "b": [np.ones(3), jnp.zeros(())]},
        {"a": jnp.zeros((2, 3)), "b": np.ones(3, int)},
        (ShapeDtypeStruct((2,), np.float32), None),
        {"a": "b"},
        [1.0, 2],
        {"a": [(1, 2)]},
        None,
        [],
        jnp.arange(3),
    ]
    found = []
    for check in (shape_checks.leaf_check, shape_checks.interpreted):
        monkeypatch.setattr(_typeguard, "typechecked", check)
        found.append([isinstance(tree, PyTree[leaf]) for tree in trees])
    assert found[0] == found[1]
    assert {True, False} == set(found[0])


def sources():
    return sorted(path for package in PACKAGES for path in package.rglob("*.py"))


def unsaid(source, lines):
    """The lines of annotations that say nothing, and don't say why."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.Attribute) and (
            ast.unparse(node).removeprefix("typing.") == "Any"
            and "  # " not in lines[node.lineno - 1]
        ):
            yield node.lineno


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from typing import Any", 0),
        ("def f(x: Any) -> dict[str, Any]: ...", 2),
        ("x: typing.Any = 1", 1),
        ("def f(x: Any): ...  # of whatever kind: it is only passed on", 0),
        ("def f(x: object): ...", 0),
    ],
)
def test_what_says_nothing_is_found(source, found):
    assert len(list(unsaid(source, source.splitlines()))) == found


def test_no_signature_says_any_without_a_reason():
    texts = {path: path.read_text(encoding="utf-8") for path in sources()}
    assert len(texts) > 60
    assert [
        f"{path.relative_to(PROJECT)}:{line}"
        for path, text in texts.items()
        for line in unsaid(text, text.splitlines())
    ] == []


def shapeless(source):
    """The lines of annotations that are arrays of whatever shape."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.AnnAssign):
            annotations = [node.annotation]
        elif isinstance(node, ast.FunctionDef):
            annotations = [node.returns]
        else:
            continue
        within = [each for annotation in annotations if annotation for each in parts(annotation)]
        yield from (each.lineno for each in within if ast.unparse(each) in BARE)


BARE = {"jax.Array", "np.ndarray", "Array"}


def parts(annotation):
    """An annotation and what it is made of, but for what jaxtyping is given."""
    if isinstance(annotation, ast.Subscript) and is_shaped(annotation.slice):
        return
    yield annotation
    for child in ast.iter_child_nodes(annotation):
        yield from parts(child)


def is_shaped(of):
    """Whether this is `Array, "a shape"`."""
    return (
        isinstance(of, ast.Tuple)
        and len(of.elts) == 2
        and isinstance(of.elts[1], ast.Constant)
        and isinstance(of.elts[1].value, str)
    )


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(x: jax.Array, y: list[np.ndarray]) -> Array | None: ...", 3),
        ('def f(x: Float[Array, "a b"]) -> dict[str, Int[np.ndarray, ""]]: ...', 0),
        ("x: np.ndarray = a", 1),
        ("isinstance(x, jax.Array)", 0),
    ],
)
def test_what_has_no_shape_is_found(source, found):
    assert len(list(shapeless(source))) == found


def test_no_array_without_a_shape():
    assert [
        f"{path.relative_to(PROJECT)}:{line}"
        for path in sources()
        for line in shapeless(path.read_text(encoding="utf-8"))
    ] == []
