"""The inner training of a recipe, ready to run and to be differentiated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import jax
import numpy as np
from jax.sharding import AbstractMesh
from jaxtyping import Array, Float32, Key, PyTree

from metatune.data import Corpus
from metatune.hypergrad import Problem, State, as_argument, programs
from metatune.inner import initialisation, losses, optimizers, seeds
from metatune.inner.trainable import Trainable
from metatune.models import LanguageModel, Layout
from metatune.recipe.schema import GroupsSpec, Recipe
from metatune.tunables import Hyper, TokenClasses, Trajectory, Tunable
from metatune.tunables.hyper import Rates
from metatune.tunables.optimizer_groups import per_leaf
from metatune.tunables.shapes import Names, Slice, SlicesLike, Weights
from metatune.tunables.used import Curve


@dataclass(frozen=True, eq=False)
class InnerTraining:
    """A recipe's inner training.

    Attributes:
        recipe: the recipe.
        model: the language model.
        corpus: the domains, cut into windows and splits.
        tunables: what is tuned; η has a slice for each, by key.
        part: which of the model's parameters are trained; a state holds those alone.
        frozen: the others.
        reweighted: the training on stratified batches, differentiable by the mixture.
        sampled: the same training on batches drawn at the mixture's shares.
        weights_sha256: of the pretrained weights that it starts from; None for none.
        checkpoints_sha256: of the further checkpoints that a start is interpolated towards, by
            the recipe's name for them; empty of none.
        initialise: a key to the state that a training starts from, freshly initialised or
            pretrained; compiled. A tuned start is made of it by the problem.
        hyper_over: η, and the inner steps in question (all by default), to the hyperparameters of
            each, stacked on axis 0, but for what isn't scheduled; compiled.
        layout: how states lie on several devices; None for one.
    """

    recipe: Recipe
    model: LanguageModel
    corpus: Corpus
    tunables: tuple[Tunable, ...]
    part: Trainable
    frozen: Weights
    reweighted: Problem
    sampled: Problem
    weights_sha256: str | None
    checkpoints_sha256: Mapping[str, str]
    initialise: Callable[[Key[Array, ""]], State]
    hyper_over: Callable[..., Hyper]
    layout: Layout | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether it is of devices that aren't here, for which nothing can be run."""
        return self.layout is not None and isinstance(self.layout.mesh, AbstractMesh)

    @property
    def names(self) -> Names:
        """`ParameterNames` at the leaves of a tree like the trained parameters."""
        return self.part.names

    def merged(self, params: Weights) -> Weights:
        """All of the model's parameters, as `save_pretrained` takes them.

        Args:
            params: the trained ones, of a state.
        """
        return self.part.merged(params, self.frozen)

    def initial_eta(self) -> dict[str, Slice]:
        """The meta-parameters that leave the recipe as it is."""
        return {tunable.key: tunable.initial() for tunable in self.tunables}

    def start(self, eta: SlicesLike) -> dict[str, Float32[np.ndarray, "..."]] | None:
        """What a training starts from by checkpoint name; None if that isn't tuned."""
        problem = as_argument(self.reweighted)
        if problem.start is None:
            return None
        given = self.initialise(seeds.key(self.recipe.seed))
        # The very program of the trainings, so that the weights are theirs to the bit.
        begun = programs.begin(problem, dict(eta), given)
        return initialisation.by_name(self.names, begun.params)

    def trajectory(self, eta: SlicesLike) -> Trajectory:
        """What every inner step uses at these meta-parameters: the very numbers of the training."""
        hyper = self.hyper_over(dict(eta))
        rates = self._by_name(hyper.learning_rate)
        numbers = {
            key: self._by_name(values) if key == "weight_decay" else np.asarray(values, np.float64)
            for key, values in (hyper.optimizer or {}).items()
        }
        shares = np.asarray(hyper.mixture, np.float64)
        weights = np.asarray(hyper.loss_weights, np.float64)
        by_class = hyper.class_weights
        return Trajectory(
            rates,
            shares / shares.sum(-1, keepdims=True),
            weights / weights.mean(-1, keepdims=True),
            None if by_class is None else np.asarray(by_class, np.float64),
            numbers,
            {key: np.asarray(row, np.float64) for key, row in (hyper.loss_terms or {}).items()},
            hyper,
        )

    def _by_name(self, tree: Rates) -> dict[str, Curve]:
        """Values over all steps by checkpoint name, from a tree like the parameters.

        Args:
            tree: each leaf [steps, ...], with an axis of layers where its parameter is stacked;
                None at parameters that have no value.
        """
        found: dict[str, Curve] = {}
        leaves = jax.tree.leaves(tree, is_leaf=lambda node: node is None)
        for leaf, values in zip(jax.tree.leaves(self.names), leaves, strict=True):
            if values is None:
                continue
            columns = np.asarray(values, np.float64).reshape(len(values), -1)
            per_name = np.broadcast_to(columns, (len(values), len(leaf.names)))
            found |= {name: per_name[:, i].copy() for i, name in enumerate(leaf.names)}
        return found

    def weighing(self, classes: TokenClasses) -> Problem:
        """The training by true sampling, where λ_t weighs tokens by other classes."""
        loss = losses.sampled_loss(self.model, classes)
        of_trained = of_all_parameters(self.part, self.frozen, loss, self.layout)
        return replace(self.sampled, loss=of_trained)

    def shapes(self) -> State:
        """A state that a training starts from, without its values: shapes, types and places."""
        state: State = jax.eval_shape(self.initialise, jax.random.key(0))
        if self.layout is None:
            return state
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            state,
            self.layout.shardings(state, state.params),
        )

    def placed(self, state: State) -> State:
        """A state that was made otherwise, where those of `initialise` lie."""
        return state if self.layout is None else self.layout.place(state, state.params)

    def decayed(self) -> tuple[str, ...]:
        """Checkpoint names of the parameters that weight decay applies to."""
        params = jax.eval_shape(self.initialise, jax.random.key(0)).params
        return optimizers.decayed(self.recipe.inner.optimizer, self.names, params)

    def members(self) -> tuple[Mapping[str, tuple[str, ...]], ...]:
        """Of each of several optimizers side by side, its parameters; see `optimizers.members`."""
        params = jax.eval_shape(self.initialise, jax.random.key(0)).params
        return optimizers.members(self.recipe.inner.optimizer, self.names, params)

    def peaks(self) -> dict[str, float]:
        """The peak of each parameter's base rate by checkpoint name."""
        optimizer = self.recipe.inner.optimizer
        found = [leaf.names for leaf in jax.tree.leaves(self.names)]
        if not isinstance(optimizer, GroupsSpec):
            return {name: optimizer.learning_rate for names in found for name in names}
        own = jax.tree.leaves(per_leaf(optimizer, self.names, "learning_rate"))
        pairs = zip(found, own, strict=True)
        return {name: peak for names, peak in pairs for name in names}


def of_all_parameters(
    part: Trainable,
    rest: Weights,
    function: Callable[..., PyTree],
    layout: Layout | None = None,
) -> jax.tree_util.Partial:
    """A function of all parameters as one of the trained ones, the `rest` bound to it.

    Args:
        part: what is trained.
        rest: what isn't.
        function: of all parameters and further arguments, the last of which is a batch.
        layout: how these lie on several devices; None for one.
    """

    def of_trained(rest: Weights, trained: Weights, *further: PyTree) -> PyTree:
        if layout is not None:
            # So lie all derivatives, too: a constraint's is the same constraint.
            trained = layout.kept(trained, trained)
            further = (*further[:-1], layout.cut(further[-1]))
        return function(part.joined(trained, rest), *further)

    return jax.tree_util.Partial(of_trained, rest)
