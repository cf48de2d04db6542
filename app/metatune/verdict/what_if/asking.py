"""Asks a run what a change would do: by its derivatives, and by trainings that check them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import numpy as np

from metatune.artefact import Artefact, ArtefactError
from metatune.fit.artefact_folder import complete
from metatune.fit.inputs import inputs
from metatune.fit.making import sections_of
from metatune.fit.replaying.record import meta_parameters
from metatune.fit.run_folder import RunFolder
from metatune.hypergrad.estimator import Listener
from metatune.inner import InnerTraining
from metatune.inner.seeds import Purpose
from metatune.inner.size import refuse_larger_than_memory
from metatune.ladder.measuring import following, held_out_loss
from metatune.ladder.progress import Display
from metatune.recipe.faults import ABSENT, Fault, RecipeError
from metatune.recipe.measures import unit
from metatune.runs.faults import RUN
from metatune.runs.inputs import refuse_changed
from metatune.runs.lock import locked
from metatune.verdict.derivatives import HYPERGRADIENT, Derivatives, shifted
from metatune.verdict.statistics import PairedDifference, difference
from metatune.verdict.what_if.changes import SECTIONS, Change, changeable, changed
from metatune.verdict.what_if.model import (
    LEVEL,
    Bend,
    PredictedChange,
    bend,
    by_pairs,
    held,
    holds,
    predicted,
)
from metatune.verdict.what_if.record import Answers, Quantity

SEEDS: Final = 6
"""Hypergradients by default."""

BENT: Final = 2
"""One of so many seeds has trainings on either side, and two at least have."""

PAIRS: Final = 8
"""Pairs of trainings that check a prediction, by default."""

CHECKED: Final = 1 << 23
"""Numbers of validation trainings from which on these are what-if's; those of searches and of
contestants are all below."""

PREDICTED: Final = 1 << 24
"""Those of pairs that predict, where derivatives don't."""

DECIMALS: Final = 5
"""Of a δ: so the opposite of a change is found in the record, whatever the rounding of either."""


class Answer(NamedTuple):
    """What a change would do.

    Attributes:
        predicted: by the derivatives.
        measured: the changed schedules' losses minus those of the chosen ones, by trainings on
            fresh seeds, which draw their batches at the mixture; None where none were asked for.
    """

    predicted: PredictedChange
    measured: PairedDifference | None = None

    @property
    def held(self) -> bool | None:
        """Whether the prediction held, as far as both are known; None where nothing was measured.

        A training that diverged with most seeds is as it was predicted where that diverged, too.
        """
        found = self.measured
        return None if found is None else held(self.predicted, found.mean, found.low, found.high)


@dataclass(frozen=True, eq=False)
class Asking:
    """A run that is asked.

    Attributes:
        folder: of the run.
        tuned: its artefact.
        training: its training.
        eta: the meta-parameters that were chosen.
        seeds: hypergradients that a slope is the mean of.
    """

    folder: RunFolder
    tuned: Artefact
    training: InnerTraining
    eta: Mapping[str, jax.Array]
    seeds: int

    @property
    def bent(self) -> int:
        """Seeds with trainings on either side."""
        return max(2, self.seeds // BENT)

    @property
    def unit(self) -> str:
        """Of the objective."""
        return unit(self.training.recipe)

    @property
    def keys(self) -> list[str]:
        """Tunables that can be changed."""
        return changeable(self.training)

    def point(self, changes: Sequence[Change]) -> dict[str, jax.Array]:
        """The meta-parameters that changes lead to; raises what `changes.changed` does."""
        return changed(self.training, self.eta, changes)

    def moved(self, point: Mapping[str, Any]) -> np.ndarray:
        """δ, from the chosen meta-parameters to a point, [N], in float32, to `DECIMALS`."""
        parts = [np.asarray(point[key]) - np.asarray(self.eta[key]) for key in self.keys]
        moved = np.concatenate([part.ravel() for part in parts]).astype(np.float64)
        return np.round(moved, DECIMALS).astype(np.float32)

    def slices(self, delta: np.ndarray) -> dict[str, np.ndarray]:
        """A vector [N] by tunable."""
        found, at = {}, 0
        for key in self.keys:
            shape = np.shape(self.eta[key])
            size = int(np.prod(shape))
            found[key], at = delta[at : at + size].reshape(shape), at + size
        return found

    @contextmanager
    def opened(self, display: Display) -> Iterator["OpenedAsking"]:
        """Holds the run, and what was computed of it.

        Args:
            display: is told of everything that is computed.
        """
        identity = {
            "recipe_sha256": self.tuned.provenance["recipe_sha256"],
            "best_outer_step": self.tuned.result["best_outer_step"],
        }
        with locked(self.folder.path, RUN), self.folder.cleared_scratch():
            record = Answers(self.folder.path, identity)
            record.mend()
            derivatives = Derivatives(self.training, self.eta, self.folder.scratch)
            yield OpenedAsking(self, derivatives, record, display)


@dataclass(frozen=True, eq=False)
class OpenedAsking:
    """A run that answers.

    Attributes:
        asking: the run.
        derivatives: of its training.
        record: of what is known.
        display: is told of what is computed.
    """

    asking: Asking
    derivatives: Derivatives
    record: Answers
    display: Display

    def prediction(self, delta: np.ndarray, what: str) -> PredictedChange:
        """What a change δ would do.

        Args:
            delta: δ, [N].
            what: the change, for people.
        """
        slopes = [float(row @ np.asarray(delta, np.float64)) for row in self.gradients()]
        if not np.any(delta):
            return predicted(slopes, [])
        bends = self.bends(delta, slopes, what)
        model = predicted(slopes, bends)
        if holds(slopes, bends):
            return model
        found = self._pairs(delta, what, self.asking.seeds, PREDICTED)
        return by_pairs(model, found.mean, found.low, found.high, found.seeds)

    def gradients(self) -> list[np.ndarray]:
        """The hypergradients of all seeds at the chosen meta-parameters, [N] each."""
        still = np.zeros(len(self.asking.moved(self.asking.eta)), np.float32)
        return [self._gradient(still, seed) for seed in range(self.asking.seeds)]

    def bends(self, delta: np.ndarray, slopes: Sequence[float], what: str) -> list[Bend | None]:
        """What trainings on either side of the chosen meta-parameters tell of some seeds."""
        still, found = np.zeros_like(delta), []
        for seed in range(self.asking.bent):
            base, above, below = (
                self._objective(at, seed, f"{what}, seed {seed + 1} of {self.asking.bent}, {side}")
                for at, side in (
                    (still, "as chosen"),
                    (delta, "changed"),
                    (-delta, "changed the other way"),
                )
            )
            found.append(bend(base, above, below, slopes[seed]))
        return found

    def measurement(self, delta: np.ndarray, what: str, pairs: int) -> PairedDifference:
        """What a change δ does, by pairs of trainings.

        Args:
            delta: δ, [N].
            what: the change, for people.
            pairs: two or more.
        """
        return self._pairs(delta, what, pairs, CHECKED)

    def _pairs(self, delta: np.ndarray, what: str, pairs: int, first: int) -> PairedDifference:
        still = np.zeros_like(delta)
        after, before = (
            [
                self._held_out(at, first + pair, f"{side}, pair {pair + 1} of {pairs}")
                for pair in range(pairs)
            ]
            for at, side in ((delta, what), (still, "as chosen"))
        )
        return difference(after, before, LEVEL)

    def _gradient(self, delta: np.ndarray, seed: int) -> np.ndarray:
        what = f"hypergradient, seed {seed + 1} of {self.asking.seeds}"

        def compute(listener: Listener) -> list[float]:
            found = self.derivatives.gradient(self.asking.eta, seed, listener)
            return np.concatenate([found[key].ravel() for key in self.asking.keys]).tolist()

        self._known("gradient", delta, seed, what, HYPERGRADIENT, compute)
        return self.record.numbers("gradient", delta, seed)

    def _objective(self, delta: np.ndarray, seed: int, what: str) -> float:
        def compute(listener: Listener) -> float:
            at = shifted(self.asking.eta, self.asking.slices(delta))
            return self.derivatives.objective(at, seed, listener)

        self._known("objective", delta, seed, what, 1.0, compute)
        return self.record.number("objective", delta, seed)

    def _held_out(self, delta: np.ndarray, seed: int, what: str) -> float:
        def compute(listener: Listener) -> float:
            asking = self.asking
            at = shifted(asking.eta, asking.slices(delta))
            schedules = replace(asking.tuned, **sections_of(asking.training, at, asking.keys))
            followed = following(asking.training, schedules)
            return held_out_loss(followed, seed, purpose=Purpose.VALIDATION, listener=listener)

        self._known("held out", delta, seed, what, 1.0, compute)
        return self.record.number("held out", delta, seed)

    def _known(
        self,
        quantity: Quantity,
        delta: np.ndarray,
        seed: int,
        what: str,
        work: float,
        compute: Callable[[Listener], float | list[float]],
    ) -> None:
        """Sees to it that a value is in the record."""
        if self.record.knows(quantity, delta, seed):
            return
        steps = self.asking.training.recipe.inner.steps
        value = compute(self.display.training(what, steps, work))
        self.record.keep(quantity, delta, seed, value)
        self.display.done(work)


def ask(run: Path, training_of: Callable[[RunFolder], InnerTraining], seeds: int = SEEDS) -> Asking:
    """Reads a run, and refuses one that can't be asked.

    Args:
        run: a run folder that is finished.
        training_of: prepares the training of its recipe.
        seeds: hypergradients that a slope is the mean of, two or more.

    Raises:
        RunFolderError: it is no finished run, or its data have changed.
        RecipeError: its training is another program's, or none of what it tunes can be changed.
        ArtefactError: its meta-parameters aren't there.
    """
    folder, tuned = complete(run)
    training = training_of(folder)
    recipe = training.recipe
    if recipe.trainer is not None:
        problem = "trains elsewhere, with no derivative here"
        cure = "change the schedules, and train there"
        fault = Fault("trainer.command", recipe.trainer.command, problem, cure)
        raise RecipeError(str(run), [fault])
    if not changeable(training):
        keys = [each.key for each in training.tunables]
        problem = f"what-if changes {' and '.join(SECTIONS)}, rates of whole parameters"
        fault = Fault("tune", keys, problem, "tune one of them")
        raise RecipeError(str(run), [fault])
    refuse_changed(folder.path, inputs(training), RUN)
    refuse_larger_than_memory(training)
    if tuned.origin is None:
        problem = "has no meta-parameters beside it"
        cure = "take the artefact that metatune fit wrote"
        raise ArtefactError(str(run), [Fault("meta_parameters", ABSENT, problem, cure)])
    return Asking(folder, tuned, training, meta_parameters(training, tuned.origin), seeds)


def work(asking: Asking, questions: int, pairs: int = 0) -> float:
    """Trainings that so many new questions take, about."""
    each = 2 * asking.bent + pairs
    return asking.seeds * HYPERGRADIENT + asking.bent + pairs + questions * each
