"""What an outer step of a recipe works on, whatever estimates its hypergradient."""

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from metatune.data import Batch, stratified_batches
from metatune.hypergrad import Checkpoints, as_argument, stacking
from metatune.hypergrad.estimator import Estimator, Job
from metatune.hypergrad.problem import Problem, State
from metatune.hypergrad.segments import Segment, fetch
from metatune.hypergrad.shapes import Tree
from metatune.hypergrad.sharding import TOGETHER, MemberAxis, member_axis, stacked_place
from metatune.hypergrad.stacking import stack, stacked
from metatune.hypergrad.stores import device_bytes
from metatune.inner import InnerTraining
from metatune.inner.metrics import held_out_batches
from metatune.recipe.phases import horizons
from metatune.recipe.schema import FullSpec, OnlineSpec, Recipe, TruncatedSpec
from metatune.recipe.trajectory import points

SEED = (0,)  # the shapes of batches don't depend on it, nor what they cost


def placed(shapes: Any, places: Any) -> Any:
    """Shapes of arrays, with the places where they lie, a tree like them."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place, weak_type=leaf.weak_type
        ),
        shapes,
        places,
    )


def side_by_side(shapes: Any, count: int, axis: MemberAxis = TOGETHER) -> Any:
    """Shapes of so many of each array, [count, ...], cut over an axis, each where one lies."""

    def several(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            (count, *leaf.shape), leaf.dtype, sharding=stacked_place(leaf.sharding, axis)
        )

    return jax.tree.map(several, shapes)


class Horizon(NamedTuple):
    """Inner steps of an outer step.

    Attributes:
        steps: that are run.
        window: that are differentiated, the last of them.
    """

    steps: int
    window: int


def horizon(recipe: Recipe) -> Horizon:
    """The inner steps of an outer step, of a recipe without phases."""
    steps = recipe.inner.steps
    match recipe.outer.unroll:
        case FullSpec() as full:  # one, if any: growing ones are planned one after the other
            steps = (horizons(full, recipe.inner, recipe.tune) or (steps,))[0]
            return Horizon(steps, steps)
        case TruncatedSpec(window=window):
            return Horizon(steps, window)
        case OnlineSpec(window=window):
            return Horizon(window, window)


def together(recipe: Recipe) -> int | None:
    """Members of a population that are differentiated in one program; None for one at a time."""
    population = recipe.outer.population
    return population.members if population and population.vmap else None


Way = TypeVar("Way", bound=Estimator, covariant=True)


@dataclass(frozen=True, eq=False)
class Work(Generic[Way]):
    """A recipe's training with an estimator, on arrays or on their shapes.

    Attributes:
        training: the training.
        estimator: how it is differentiated.
        members: of a population that is differentiated in one program, stacked; None for one
            training at a time.
    """

    training: InnerTraining
    estimator: Way
    members: int | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.training.recipe

    @property
    def elsewhere(self) -> bool:
        """Whether it is of devices that aren't here, for which nothing can be run."""
        return self.training.elsewhere

    def given(self, tree: Tree) -> Tree:
        """Arrays, as a program is traced for them: elsewhere as shapes, wherever XLA wants them."""
        return jax.eval_shape(lambda: tree) if self.elsewhere else tree

    def argument(self) -> Problem:
        """The problem, as `given`, with what is frozen where it lies."""
        if not self.elsewhere:
            return self.problem
        arrays = jax.tree.leaves(self.training.frozen)
        frozen = dict(zip(map(id, arrays), jax.tree.leaves(self.frozen()), strict=True))
        problem = self.problem
        return jax.tree.map(
            lambda leaf, shape: frozen.get(id(leaf), shape), problem, self.given(problem)
        )

    @property
    def problem(self) -> Problem:
        """What is differentiated, as an argument of compiled programs."""
        problem = self.training.reweighted
        if self.members is not None:
            problem = stacked(problem, jnp.zeros(self.members, jnp.int32), self.axis)
        return as_argument(problem)

    def begin(self) -> tuple[dict[str, Any], State]:
        """Meta-parameters and state that a hypergradient begins with."""
        eta, state = self.training.initial_eta(), self.training.initialise(jax.random.key(0))
        if self.members is None:
            return eta, state
        states, _ = stacking.side_by_side(self.members, lambda number: state)
        return stack([eta] * self.members), states

    def state(self) -> State:
        """A state, as shapes, with their places on several devices."""
        one = self.training.shapes()
        return one if self.members is None else side_by_side(one, self.members, self.axis)

    @property
    def axis(self) -> MemberAxis:
        """That members or directions are cut over."""
        return member_axis(self.training.shapes())

    @property
    def members_of_a_device(self) -> int:
        """Trainings of a program that a device has a part of."""
        return (self.members or 1) // (self.axis.parts if self.members else 1)

    def beside_bytes(self) -> int:
        """Of what lies beside the states of a training: what is frozen, and what a start is of.

        Where a start is tuned these are the state that it is given, and further checkpoints; not
        counted are the outer optimizer's copies of η.
        """
        start = self.training.reweighted.start
        given = 0 if start is None else device_bytes((self.state(), start))
        return device_bytes(self.frozen()) + given

    def frozen(self) -> Any:
        """What no training moves, as shapes; with their places on several devices."""
        layout, frozen = self.training.layout, jax.eval_shape(lambda: self.training.frozen)
        return frozen if layout is None else placed(frozen, layout.shardings(frozen, frozen))

    def eta(self) -> dict[str, Any]:
        """Meta-parameters, as shapes."""
        return jax.eval_shape(self.begin)[0]

    def job(self) -> Job:
        """The hypergradient, on shapes: nothing is run."""
        steps, window = horizon(self.recipe)
        return Job(
            problem=as_argument(self.training.reweighted),
            eta=self.training.initial_eta(),
            # Only where a start is tuned, forward mode looks at its derivatives.
            state=self.training.initialise(jax.random.key(0))
            if self.training.reweighted.start and not self.elsewhere
            else self.state(),
            batches=lambda step: None,
            outer_batches=(),
            start=0,
            first=steps - window,
            stop=steps,
            points=points(self.recipe.outer.objective.trajectory, steps),
            checkpoints=Checkpoints(),
            key=None,
            control=None,
            carry=None,
            listener=None,
        )

    def averaged_bytes(self) -> int:
        """Of the parameters that the objective is taken of, where they aren't those trained."""
        averages = self.training.reweighted.evaluated is not None
        return device_bytes(self.state().params) if averages else 0

    @property
    def most(self) -> int:
        """Inner steps that a segment can have."""
        return min(self.recipe.inner.steps, self.estimator.segment)

    def segment(self, steps: int) -> Segment:
        """The first `steps` inner steps of a hypergradient, as a segment; 0 for one of none."""
        batches = stratified_batches(
            self.training.corpus,
            seed=SEED,
            batch_size=self.recipe.data.batch_size,
            shares=self._shares(),
        )

        def drawn(step: int) -> Batch:
            count = self.members
            return batches(step) if count is None else stack([batches(step)] * count, batches=True)

        found = fetch(drawn, 0, max(1, min(steps, self.most)), self.estimator.segment)
        return found if steps else found._replace(stop=found.start)

    def held_out(self, sequences: int) -> list[Batch]:
        """Held-out batches with so many sequences in all."""
        corpus, outer = self.training.corpus, self.recipe.outer
        return held_out_batches(outer, corpus, "validation", seed=SEED, sequences=sequences)

    def gradients(self, sequences: int) -> float:
        """Gradients of an inner step that a value and its gradient on so many sequences take."""
        return sequences / self.recipe.data.batch_size

    def objective_gradients(self) -> float:
        """Gradients of an inner step that the objective and its gradient take."""
        objective = self.recipe.outer.objective
        points = objective.trajectory.points if objective.trajectory else 1
        return points * self.gradients(objective.sequences)

    def _shares(self) -> np.ndarray:
        return self.training.trajectory(self.training.initial_eta()).mixture
