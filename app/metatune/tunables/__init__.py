"""What can be tuned. Each tunable owns a slice of η and its effect on the hyperparameters λ_t.

A new tunable is a file here, a field of `metatune.recipe.schema.TuneSpec`, and a row of `ENTRIES`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from metatune.hypergrad.shapes import Scalar
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.schema import TuneSpec
from metatune.tunables import (
    averaging,
    initialisation,
    learned_update,
    learning_rates,
    loss_terms,
    loss_weights,
    mixture,
    optimizer,
    rater,
)
from metatune.tunables.class_weights import TunableClassWeights
from metatune.tunables.elements import Elements
from metatune.tunables.groups import Groups
from metatune.tunables.hyper import (
    Correction,
    Hyper,
    Networks,
    Setting,
    Supply,
    TrainingTokens,
    Tunable,
)
from metatune.tunables.initialisation import Begins, Interpolation, StartingPoint
from metatune.tunables.learned_update import Form, TunableLearnedUpdate
from metatune.tunables.learning_rates import TunableLearningRates
from metatune.tunables.loss_terms import LossTerm
from metatune.tunables.loss_weights import TunableLossWeights
from metatune.tunables.mixture import TunableMixture
from metatune.tunables.optimizer import GroupedField, OptimizerField
from metatune.tunables.rater import TunableRater
from metatune.tunables.rating import Rating
from metatune.tunables.shapes import Slices
from metatune.tunables.token_classes import TokenClasses, token_classes
from metatune.tunables.used import Trajectory, Used

__all__ = [
    "ENTRIES",
    "Begins",
    "TunableClassWeights",
    "Correction",
    "Elements",
    "Form",
    "GroupedField",
    "Groups",
    "Hyper",
    "Interpolation",
    "TunableLearnedUpdate",
    "TunableLearningRates",
    "LossTerm",
    "TunableLossWeights",
    "TunableMixture",
    "Networks",
    "OptimizerField",
    "TunableRater",
    "Rating",
    "Setting",
    "StartingPoint",
    "Supply",
    "TokenClasses",
    "TrainingTokens",
    "Trajectory",
    "Tunable",
    "Used",
    "build",
    "needs_data",
    "needs_tokens",
    "penalty",
    "scheduled",
    "token_classes",
    "within_parameters",
]

Made = Tunable | tuple[Tunable, ...] | None
"""By an entry of `tune`: one tunable, several, or none yet."""


class Entry(NamedTuple):
    """An entry of `tune`.

    Attributes:
        build: what it says, and what it is tuned for, to its tunables.
        section: all tunables, η and what a training uses there, to its section of the artefact;
            None for none.
    """

    build: Callable[..., Made]
    section: Callable[[Sequence[Tunable], Slices, Used], object]


ENTRIES: Mapping[str, Entry] = {
    module.__name__.rpartition(".")[2]: Entry(module.build, module.section)
    for module in (
        learning_rates,
        mixture,
        loss_weights,
        optimizer,
        loss_terms,
        initialisation,
        learned_update,
        rater,
        averaging,
    )
}
"""By their keys, which are the names of their modules."""


def needs_data(tune: TuneSpec) -> bool:
    """Whether some tunables are only built once the training data has been read."""
    return needs_tokens(tune) or (tune.mixture is not None and tune.mixture.max_epochs is not None)


def needs_tokens(tune: TuneSpec) -> bool:
    """Whether some tunables are only built of the classes of the training tokens."""
    return tune.loss_weights is not None and tune.loss_weights.per != "domain"


def within_parameters(tunable: Tunable) -> bool:
    """Whether what is tuned is as large as the parameters: a rate for each row, say."""
    return isinstance(tunable, TunableLearningRates) and isinstance(tunable.cells, Elements)


def scheduled(tunable: Tunable) -> bool:
    """Whether what is tuned is a few numbers for each inner step."""
    return not within_parameters(tunable) and not isinstance(
        tunable, TunableLearnedUpdate | TunableRater
    )


def build(tune: TuneSpec, setting: Setting, known: Sequence[Fault] = ()) -> tuple[Tunable, ...]:
    """The tunables of a recipe, without those that need what `setting` doesn't hold yet.

    Args:
        tune: what to tune.
        setting: what it is tuned for.
        known: faults of the recipe; a tunable that has one, or can't be built for one, is left
            out.

    Raises:
        RecipeError: with the faults of all tunables together.
    """
    built, faults = [], []
    for key, entry in ENTRIES.items():
        spec = getattr(tune, key)
        # Too many windows keep no tunable from being built; any other fault may.
        faulty = {f.path for f in known if f.path.startswith(f"tune.{key}")}
        if spec is None or faulty - {f"tune.{key}.windows"}:
            continue
        try:
            found = entry.build(spec, setting)
            built += found if isinstance(found, tuple) else [found]
        except RecipeError as error:
            faults += error.faults
        except Exception:
            if not known:
                raise
    if faults:
        raise RecipeError("tune", faults)
    return tuple(tunable for tunable in built if tunable is not None)


def penalty(tunables: Sequence[Tunable], eta: Slices, deviation: float = 0.0) -> Scalar:
    """What the search pays for meta-parameters besides the objective: the sum over tunables.

    Args:
        tunables: what is tuned.
        eta: meta-parameters, a slice for each.
        deviation: factor of `(η - η₀)²`, the mean over a tunable's slice.
    """
    total = sum((tunable.penalty(eta[tunable.key]) for tunable in tunables), jnp.zeros(()))
    if deviation:
        for tunable in tunables:
            total += deviation * jnp.mean((eta[tunable.key] - tunable.initial()) ** 2)
    return total
