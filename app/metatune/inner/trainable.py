"""What of a model is trained: all of it, some of its parameters, or adapters beside frozen ones.

The state of a training holds what is trained and nothing else, so that states, saved gradients and
adjoints are as small as that; what is frozen is an argument of the compiled programs. Where some
layers of a stacked leaf are trained, the leaf is split: those layers are one array, the rest
another, and they are put together where the model reads them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Key, PyTree

from metatune.inner import multi_token_head
from metatune.inner.lora import PREFIX, Adapter, rank_fault
from metatune.models import LORA_A, LORA_B, LanguageModel, ParameterNames
from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError
from metatune.tunables.shapes import Names, Weights

Path = tuple[str, ...]
"""The keys from the root of the parameters to a leaf."""
Layers = Bool[np.ndarray, "layers"]
"""Which layers of a leaf."""
TRAIN, TARGETS = "inner.train", "inner.lora.targets"


@dataclass(frozen=True, eq=False)
class Trainable:
    """The trained part of a model.

    Attributes:
        chosen: which layers of each leaf of the model are trained; [1] for a leaf that isn't
            stacked.
        adapters: by the path of the leaf that they are beside.
        head_width: of the multi-token-prediction head, trained whatever else is; None for none.
        names: `ParameterNames` at the leaves of a tree like the trained parameters.
    """

    chosen: Mapping[Path, Layers]
    adapters: Mapping[Path, Adapter]
    head_width: int | None
    names: Names

    @property
    def freezes(self) -> bool:
        """Whether anything is frozen."""
        return not all(map(np.all, self.chosen.values()))

    def trained(self, params: Weights, key: Key[Array, ""]) -> Weights:
        """What a training starts from.

        Args:
            params: all of the model's parameters.
            key: of the adapters.
        """
        flat = _flat(params)
        taken = {path: _taken(flat[path], layers) for path, layers in self.chosen.items()}
        for number, (path, adapter) in enumerate(self.adapters.items()):
            for name, leaf in adapter.init(jax.random.fold_in(key, number)).items():
                taken[*path[:-1], name] = leaf
        if self.head_width is not None:
            taken[multi_token_head.PATH] = multi_token_head.initial(self.head_width)
        return _nested(taken)

    def frozen(self, params: Weights) -> Weights:
        """What stays as it is of all the model's parameters."""
        flat = _flat(params)
        return _nested({path: _taken(flat[path], ~layers) for path, layers in self.chosen.items()})

    def joined(self, trained: Weights, frozen: Weights) -> Weights:
        """All parameters as the loss computes with them: adapters beside what they adapt."""
        ours, rest = _flat(trained), _flat(frozen)
        whole = {
            path: _put_together(ours.get(path), rest.get(path), layers)
            for path, layers in self.chosen.items()
        }
        for path, adapter in self.adapters.items():
            a, b = (ours[*path[:-1], name] for name in (LORA_A, LORA_B))
            for name, leaf in ((LORA_A, a), (LORA_B, adapter.scale * b)):
                zeros = jnp.zeros((len(adapter.layers), *leaf.shape[1:]), leaf.dtype)
                none = _taken(zeros, ~adapter.layers)
                whole[*path[:-1], name] = _put_together(leaf, none, adapter.layers)
        if self.head_width is not None:
            whole[multi_token_head.PATH] = ours[multi_token_head.PATH]
        return _nested(whole)

    def merged(self, trained: Weights, frozen: Weights) -> Weights:
        """All parameters as checkpoints have them: adapters added, without that head."""
        ours, whole = _flat(trained), _flat(self.joined(trained, frozen))
        for path, adapter in self.adapters.items():
            a, b = (ours[*path[:-1], name] for name in (LORA_A, LORA_B))
            layers = np.flatnonzero(adapter.layers)
            whole[path] = whole[path].at[layers].add(adapter.product(a, b))
            for name in (LORA_A, LORA_B):
                del whole[*path[:-1], name]
        whole.pop(multi_token_head.PATH, None)
        return _nested(whole)


def trainable(
    model: LanguageModel, train: Sequence[str] | None, lora: schema.LoraSpec | None, head: bool
) -> Trainable:
    """The part of a model that a recipe trains.

    Args:
        model: the language model.
        train: regular expressions, searched for in checkpoint names: what has one is trained. None
            for all, or with `lora` for the adapters alone.
        lora: adapters; None for none.
        head: whether there is a multi-token-prediction head.

    Raises:
        RecipeError: an expression matches nothing; a rank beyond that of a matrix; a matrix that is
            trained and has an adapter as well.
    """
    names: Mapping[Path, ParameterNames] = _flat(model.names())
    shapes = _flat(model.init_shapes())
    # The matrices of the blocks: what is stacked by layer alone, and has two axes more.
    matrices = {
        p: leaf
        for p, leaf in names.items()
        if leaf.stacked and not leaf.experts and shapes[p].ndim == 3
    }
    everything = () if lora else (".",)
    wanted = everything if train is None else train
    chosen = {path: _found(wanted, leaf) for path, leaf in names.items()}
    faults = _unmatched(TRAIN, train or (), names, "parameter")
    adapters = {}
    if lora:
        faults += _unmatched(TARGETS, lora.targets, matrices, "matrix of the blocks")
        for path, leaf in matrices.items():
            if (layers := _found(lora.targets, leaf)).any():
                outputs, inputs = shapes[path].shape[1:][:: -1 if model.config.transposed else 1]
                adapters[path] = Adapter(
                    layers,
                    _of(leaf.names, layers),
                    inputs,
                    outputs,
                    model.config.transposed,
                    lora.rank,
                    lora.alpha / lora.rank,
                )
        faults += rank_fault(lora, adapters) + _trained_twice(lora, adapters, chosen, names)
    if faults:
        raise RecipeError("inner", faults)
    prefix = PREFIX if lora else ""
    named = {
        path: replace(leaf, names=tuple(prefix + name for name in _of(leaf.names, layers)))
        for path, leaf in names.items()
        if (layers := chosen[path]).any()
    }
    for path, adapter in adapters.items():
        for name, leaf in adapter.parameter_names().items():
            named[*path[:-1], name] = leaf
    if head:
        named[multi_token_head.PATH] = multi_token_head.NAMES
    width = model.config.hidden_size if head else None
    return Trainable(chosen, adapters, width, _nested(named))


def _found(expressions: Sequence[str], leaf: ParameterNames) -> Layers:
    """Which names of a leaf have one of the expressions."""
    return np.array([any(re.search(e, name) for e in expressions) for name in leaf.names])


def _of(names: Sequence[str], layers: Layers) -> tuple[str, ...]:
    return tuple(name for name, yes in zip(names, layers, strict=True) if yes)


def _taken(leaf: Float[Array, "..."], layers: Layers) -> Float[Array, "..."] | None:
    """The chosen layers of a leaf; None for none."""
    if layers.all():
        return leaf
    return leaf[np.flatnonzero(layers)] if layers.any() else None


def _put_together(
    taken: Float[Array, "..."] | None, rest: Float[Array, "..."] | None, layers: Layers
) -> Float[Array, "..."] | None:
    """A leaf of its chosen layers and the others, each layer in its place."""
    if taken is None or rest is None:
        return rest if taken is None else taken
    order = np.argsort(np.concatenate([np.flatnonzero(layers), np.flatnonzero(~layers)]))
    return jnp.concatenate([taken, rest])[order]


def _flat(tree: PyTree) -> dict[Path, PyTree]:
    """The leaves of nested dictionaries by their paths."""
    return dict(flatten_dict(tree))


def _nested(flat: Mapping[Path, PyTree]) -> PyTree:
    """The contrary; leaves that are None are left out."""
    return unflatten_dict({path: leaf for path, leaf in flat.items() if leaf is not None})


def _unmatched(
    field: str, expressions: Sequence[str], leaves: Mapping[Path, ParameterNames], what: str
) -> list[Fault]:
    """A fault for each expression that is in no name."""
    names = [name for leaf in leaves.values() for name in leaf.names]
    cure = f"match the model's checkpoint names, such as {', '.join(names[:2] + names[-1:])}"
    return [
        Fault(f"{field}[{index}]", expression, f"matches no {what}", cure)
        for index, expression in enumerate(expressions)
        if not any(re.search(expression, name) for name in names)
    ]


def _trained_twice(
    lora: schema.LoraSpec,
    adapters: Mapping[Path, Adapter],
    chosen: Mapping[Path, Layers],
    names: Mapping[Path, ParameterNames],
) -> list[Fault]:
    """A fault if an adapter is beside a matrix that is trained itself."""
    both = [
        name
        for path, adapter in adapters.items()
        for name in _of(names[path].names, adapter.layers & chosen[path])
    ]
    if not both:
        return []
    problem = f"takes {both[0]}, which {TRAIN} trains too ({len(both)} such in all)"
    cure = "an adapter is for what is frozen: take it out of one of the two"
    return [Fault(TARGETS, list(lora.targets), problem, cure)]
