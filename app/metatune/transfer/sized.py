"""A recipe's training at other sizes, in the meta-parameters of the recipe itself.

At each size λ_t is what the rule makes of the λ_t that the same η gives at the recipe's own: so the
derivative of a loss there in η is that through the rule, whose factors are constants.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metatune.artefact.demands import Demands
from metatune.inner import InnerTraining, optimizers, prepare
from metatune.inner.hyperparameters import hyper_at_of, over_steps_of
from metatune.inner.scaling import by_parameter, scaled
from metatune.models import ParameterNames
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.schema import GroupsSpec, RobustSpec
from metatune.transfer import words
from metatune.transfer.carried import factors_of
from metatune.transfer.factors import Factors
from metatune.transfer.mapping import counterparts
from metatune.transfer.refusals import of_the_models
from metatune.transfer.rules import RULES
from metatune.transfer.rung import PROXY, Rung, recipe_at
from metatune.transfer.sides import of_training
from metatune.transfer.sizes import Side
from metatune.transfer.stepping import kinds_of
from metatune.tunables import Groups, Hyper, OptimizerField, Tunable, TunableLearningRates
from metatune.tunables.averaging import averages, begun
from metatune.tunables.between_cells import BetweenCells
from metatune.tunables.optimizer_groups import per_leaf

PATH = "outer.robust"


class Sized(NamedTuple):
    """A training at a size.

    Attributes:
        rung: the size, in the recipe's own.
        training: there, in the meta-parameters of the recipe's own.
        undone: what the rule asks and no training here does, a line each.
    """

    rung: Rung
    training: InnerTraining
    undone: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`proxy`, `width x2`."""
        return self.rung.name

    @property
    def parameters(self) -> int:
        """Numbers that it moves."""
        shapes = jax.eval_shape(self.training.initialise, jax.random.key(0)).params
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def rungs(spec: RobustSpec) -> tuple[Rung, ...]:
    """The sizes of `outer.robust`, the smallest first."""
    found = (Rung(width, depth) for width, depth in product(spec.widths, spec.depths))
    return tuple(sorted(found, key=lambda rung: (rung.compute, rung.name)))


def sizes(training: InnerTraining) -> tuple[Sized, ...]:
    """The trainings of `outer.robust`; that of the recipe alone where it has none.

    Args:
        training: of the recipe.

    Raises:
        RecipeError: what is tuned has another form at some size.
    """
    spec = training.recipe.outer.robust
    if spec is None:
        return (Sized(PROXY, training),)
    outer = replace(training.recipe.outer, robust=None)

    def current(each: Sized) -> Sized:
        own = each.training
        return each._replace(training=replace(own, recipe=replace(own.recipe, outer=outer)))

    found = _prepared(_Same(training), spec)
    # The recipe's own size is the very training, so that its programs are shared.
    return tuple(
        current(each._replace(training=training) if each.rung == PROXY else each) for each in found
    )


def at_size(training: InnerTraining, rung: Rung, rule: str) -> Sized:
    """A training at a size.

    Args:
        training: of the recipe.
        rung: how many times as wide and as deep; as long as the recipe's own.
        rule: a name of `RULES`.

    Raises:
        RecipeError: what is tuned has another form there.
    """
    if rung == PROXY:
        return Sized(rung, training)
    recipe = recipe_at(training.recipe, rung)
    recipe = replace(recipe, outer=replace(recipe.outer, robust=None))
    there = prepare(recipe, f"{PATH}, {rung.name}", elsewhere=training.elsewhere)
    found = replace(there, corpus=training.corpus)
    proxy, target = of_training(training, "the recipe"), of_training(found, rung.name)
    if faults := tuple(of_the_models(proxy, target, RULES[rule])):
        raise RecipeError(PATH, faults)
    kinds = kinds_of(recipe.inner.optimizer, found.names)
    factors = factors_of(kinds, proxy, target, rule)
    tuning = tuple(
        _tunable(own, there, found, (proxy, target))
        for own, there in zip(training.tunables, found.tunables, strict=True)
    )
    shapes = jax.eval_shape(found.initialise, jax.random.key(0)).params
    carried = _Carried(found, shapes, factors)
    hyper_at = hyper_at_of(recipe, found.names, shapes, tuning)
    over = over_steps_of(recipe, found.names, shapes, tuning)

    def at(eta: Any, step: Any) -> Hyper:
        return carried(hyper_at(eta, step))

    @jax.jit
    def over_steps(eta: Any, steps: Any = None) -> Hyper:
        return jax.vmap(carried)(over(eta, steps))

    found = replace(
        found,
        tunables=tuning,
        reweighted=replace(found.reweighted, hyper_at=at),
        sampled=replace(found.sampled, hyper_at=at),
        hyper_over=over_steps,
    )
    scales = {name: factor.initial for name, factor in factors.parameters.items()}
    if set(scales.values()) != {1.0}:
        found = scaled(found, scales, _init(found))
    asked = Demands(
        rule=rule, residual=factors.residual, logits=factors.logits, attention=factors.attention
    )
    return Sized(rung, found, tuple(words.undone(asked)))


class _Carried:
    """λ_t at a size, from what the same η and the recipe's own numbers say."""

    def __init__(self, training: InnerTraining, shapes: Any, factors: Factors):
        def tree(field: str, names: Sequence[str] | None = None) -> Any:
            """A factor of each parameter; None where all are one. Of some names, None elsewhere."""
            found = {name: getattr(own, field) for name, own in factors.parameters.items()}
            if names is not None:
                found = {name: found[name] for name in names}
            if set(found.values()) <= {1.0}:
                return None
            missing = 1.0 if names is None else None
            return by_parameter(training.names, shapes, found, missing)

        self._rates, self._eps = tree("learning_rate"), tree("eps")
        self._decays = tree("weight_decay", training.decayed())
        optimizer, names = training.recipe.inner.optimizer, training.names
        if isinstance(optimizer, GroupsSpec):
            self._decay = per_leaf(optimizer, names, "weight_decay")
        else:
            self._decay = jax.tree.map(lambda _: optimizer.weight_decay, names)

    def __call__(self, hyper: Hyper) -> Hyper:
        """λ_t with the factors of the rule."""
        if self._rates is not None:
            rates = jax.tree.map(_times, hyper.learning_rate, self._rates)
            hyper = hyper._replace(learning_rate=rates)
        numbers = dict(hyper.optimizer or {})
        own = numbers.get("weight_decay")
        if self._decays is not None and (own is not None or any(jax.tree.leaves(self._decay))):
            numbers["weight_decay"] = (
                jax.tree.map(
                    lambda factor, decay: None if factor is None else jnp.asarray(decay * factor),
                    self._decays,
                    self._decay,
                    is_leaf=lambda node: node is None,
                )
                if own is None
                else jax.tree.map(_times, own, self._decays, is_leaf=lambda node: node is None)
            )
            hyper = hyper._replace(optimizer=numbers)
        if self._eps is None:
            return hyper
        return hyper._replace(eps_scale=jax.tree.map(jnp.asarray, self._eps))


def _times(value: Any, factor: Any) -> Any:
    """A number of a parameter, which has none where it doesn't decay, times its factor."""
    return None if value is None else value * factor.astype(value.dtype)


def _tunable(
    own: Tunable, there: Tunable, training: InnerTraining, sides: tuple[Side, Side]
) -> Tunable:
    """A tunable at a size, whose slice of η is that of the recipe's own.

    Raises:
        RecipeError: it has another form there.
    """
    if isinstance(there, TunableLearningRates) and isinstance(own, TunableLearningRates):
        if isinstance(own.cells, Groups):
            return replace(there, cells=_between(own.cells, training, *sides))
    elif isinstance(there, OptimizerField) and isinstance(own, OptimizerField):
        _refuse_other_groups(own, there, *sides)
    ours, theirs = (list(jax.eval_shape(each.initial).shape) for each in (own, there))
    if own.key != there.key or ours != theirs:
        problem = f"has meta-parameters {theirs} at {sides[1].source}, not {ours}"
        raise RecipeError(PATH, [Fault(f"tune.{own.key}", ours, problem, "take it out")])
    return there


def _refuse_other_groups(
    own: OptimizerField, there: OptimizerField, proxy: Side, target: Side
) -> None:
    """Refuses numbers of parameters that lie between those of two groups at another depth."""
    if own.groups is None or there.groups is None:
        return
    before, after = _labels(own.groups), _labels(there.groups)
    for name, at in counterparts(proxy, target).items():
        if not before.get(at.lower) == before.get(at.upper) == after.get(name):
            path = f"tune.optimizer.{own.key}.per"
            problem = f"groups {name} of {target.source} otherwise than what it lies between"
            cure = f"take global, or expressions on kinds, or leave {PATH}.depths out"
            raise RecipeError(PATH, [Fault(path, list(own.groups.labels), problem, cure)])


def _labels(groups: Groups) -> dict[str, str]:
    """The group of each parameter by name."""
    return {name: label for label, names in groups.members.items() for name in names}


def _between(cells: Groups, training: InnerTraining, proxy: Side, target: Side) -> BetweenCells:
    """Where each parameter at a size lies between the cells of the recipe's own."""
    number = {label: at for at, label in enumerate(cells.labels)}
    cell_of = {name: number[label] for name, label in _labels(cells).items()}
    ours = counterparts(proxy, target)

    def tree(of: Callable[[str], float], dtype: Any) -> Any:
        def leaf(named: ParameterNames) -> np.ndarray | np.generic:
            found = np.asarray([of(name) for name in named.names], dtype)
            return found if named.stacked else found[0]

        return jax.tree.map(leaf, training.names)

    return BetweenCells(
        cells.size,
        tree(lambda name: cell_of.get(ours[name].lower, -1), np.int32),
        tree(lambda name: cell_of.get(ours[name].upper, -1), np.int32),
        tree(lambda name: ours[name].along, np.float32),
    )


def _init(training: InnerTraining) -> Any:
    """What makes the state of the optimizer of parameters, an average beside it included."""
    optimizer, transposed = training.recipe.inner.optimizer, training.model.config.transposed
    init = optimizers.build(optimizer, training.names, transposed).init
    if not averages(training.tunables):
        return init
    return lambda params: begun(params, init(params))


class _Same(NamedTuple):
    """A training as a key: the same for copies that differ in how they are searched."""

    training: InnerTraining

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same):
            return False
        ours, theirs = self.training, other.training
        return ours.initialise is theirs.initialise and ours.tunables is theirs.tunables

    def __hash__(self) -> int:
        return hash((id(self.training.initialise), id(self.training.tunables)))


@lru_cache(maxsize=2)
def _prepared(same: _Same, spec: RobustSpec) -> tuple[Sized, ...]:
    """Kept, because planning and searching share what is compiled for the same functions."""
    return tuple(at_size(same.training, rung, spec.rule) for rung in rungs(spec))
