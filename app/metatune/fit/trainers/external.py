"""Trainings that a command does elsewhere: hypergradients, judgements and the result from losses.

The command is the whole inner training and its measurement: nothing is trained here.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from metatune import artefact
from metatune.fit.making import artefact_of
from metatune.fit.run_folder import RunFolder
from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import Span
from metatune.fit.trainers.commands import Given, Result, run_all
from metatune.fit.trainers.failure import CURES_SIDES, NotFinite
from metatune.hypergrad import Diagnostics, Hypergradient, State
from metatune.hypergrad.forward.directions import draw, mean
from metatune.hypergrad.forward.pairs import compared
from metatune.inner import InnerTraining
from metatune.inner.seeds import Purpose, direction_key, training_seed
from metatune.recipe import schema
from metatune.recipe.phases import Phase
from metatune.recipe.rules import arguments

ATTEMPTS = 2
"""Of a command, before its failure counts."""
NO_STATE = State((), ())


class CommandFailed(RuntimeError):
    """A command failed again and again; the run can be resumed."""


class Asked(NamedTuple):
    """A training to be done.

    Attributes:
        what: it is for, in a few words.
        given: what the command gets.
    """

    what: str
    given: Given

    @property
    def key(self) -> str:
        """What the training is known by: the same hyperparameters, seed and steps."""
        return hashlib.sha256(self.given.document.encode()).hexdigest()


class ExternalTrainer:
    """A command that trains, with a log of all that it did: no training is done twice."""

    def __init__(
        self,
        training: InnerTraining,
        spec: schema.TrainerSpec,
        folder: RunFolder,
        say: Callable[[str], None],
    ):
        """Reads the log of the run.

        Args:
            training: that the command stands for: its names, domains and steps.
            spec: the command, and how it is run.
            folder: the run folder.
            say: is told of each training.
        """
        self._training, self._spec, self._folder, self._say = training, spec, folder, say
        self._known = {
            line["key"]: line["loss"] for line in folder.read_commands() if line["loss"] is not None
        }

    def estimate(self, search: Search, phase: Phase, span: Span) -> Hypergradient:
        """The mean of (F(η + μv) - F(η - μv)) / 2μ · v over random directions v.

        A side that diverged, whose loss isn't finite, counts as `hypergrad.forward.pairs` says. A
        pair with a failed training, or with two sides that diverged, is left out. The value is the
        mean of the finite losses of the others.

        Args:
            search: where it stands.
            phase: whose directions are taken; the command is that of all phases.
            span: of no interest: the command trains all inner steps.

        Raises:
            CommandFailed: of more than half of the pairs.
            NotFinite: both sides of every other pair diverged.
        """
        del span
        recipe, spec = self._training.recipe, phase.estimator
        if not isinstance(spec, schema.ZerothOrderSpec):
            raise TypeError(f"{spec.kind} is no estimator of a search by a command")
        key = direction_key(recipe.seed, search.step)
        directions = draw(key, search.eta, spec.directions, spec.distribution)
        flat, unflatten = ravel_pytree(search.eta)
        number = search.step if recipe.outer.fresh.data else 0
        asked = [
            self._asked(
                unflatten(flat + sign * spec.step * direction),
                training_seed(recipe.seed, Purpose.HYPERGRADIENT, number),
                f"point {search.step}, direction {at + 1} {'+' if sign > 0 else '-'}",
            )
            for at, direction in enumerate(directions)
            for sign in (1, -1)
        ]
        results = self._run(asked)
        heard = np.array([r.loss is not None for r in results]).reshape(-1, 2).all(axis=1)
        failed = spec.directions - int(heard.sum())
        if 2 * failed > spec.directions:
            raise CommandFailed(
                f"point {search.step}: {failed} of {spec.directions} pairs of trainings have no "
                f"loss, half of them are needed; {self._story(results)}"
            )
        losses = np.array([r.loss for r in results], object).reshape(-1, 2)[heard]
        pairs = compared(losses.astype(np.float64))
        kept = np.flatnonzero(heard)[pairs.kept]
        if not len(kept):
            raise NotFinite(
                f"point {search.step}: of all {len(pairs.kept)} pairs of trainings both diverged; "
                f"{CURES_SIDES}"
            )
        derivatives = pairs.differences[pairs.kept] / (2 * spec.step)
        derivatives = jnp.asarray(derivatives, directions.dtype)
        gradient, errors = mean(search.eta, derivatives, directions[kept], spec.distribution)
        diagnostics = Diagnostics(
            jnp.zeros(0),
            standard_errors=errors,
            lost_directions=spec.directions - len(kept),
            diverged_sides=int(pairs.diverged),
        )
        value = jnp.asarray(pairs.mean)
        return Hypergradient(value, gradient, NO_STATE, diagnostics)

    def score(
        self, eta: Mapping[str, jax.Array], *, purpose: Purpose, index: int, **_: Any
    ) -> float:
        """The loss of a training, by the command.

        All trainings for a purpose are asked for at once, so that they may run in parallel.

        Args:
            eta: meta-parameters.
            purpose: with `index`, the seed.
            index: which of the trainings for that purpose.

        Raises:
            CommandFailed: one of them.
            NotFinite: the training diverged.
        """
        recipe, name = self._training.recipe, purpose.name.lower()
        count = {
            Purpose.VALIDATION: recipe.outer.validation.seeds,
            Purpose.TEST: recipe.outer.test.seeds,
        }
        asked = [
            self._asked(eta, training_seed(recipe.seed, purpose, at), f"{name} seed {at + 1}")
            for at in range(count[purpose])
        ]
        results = self._run(asked)
        if any(result.loss is None for result in results):
            raise CommandFailed(f"a training for the {name} failed; {self._story(results)}")
        loss = results[index].loss
        if loss is None or not math.isfinite(loss):
            raise NotFinite(
                f"{name} training {index}: the command printed {loss}; lower the learning rate "
                "that the recipe begins with, or outer.optimizer.learning_rate so that what is "
                "tuned moves more slowly",
                training=name,
                seed=index,
            )
        return loss

    def _asked(self, eta: Mapping[str, jax.Array], seed: int, what: str) -> Asked:
        """The training at some meta-parameters."""
        tuned = artefact.self_contained(artefact_of(self._training, eta, {"status": "unfinished"}))
        document = {
            **json.loads(tuned),
            "seed": seed,
            "steps": self._training.recipe.inner.steps,
        }
        return Asked(what, Given(json.dumps(document) + "\n", tuned))

    def _run(self, asked: Sequence[Asked]) -> list[Result]:
        """What comes of trainings, those of the log and those that are done now."""
        results = [Result(self._known.get(one.key), 0.0) for one in asked]
        for attempt in range(ATTEMPTS):
            left = [at for at, result in enumerate(results) if result.loss is None]
            run_all(
                arguments(self._spec.command),
                [asked[at].given for at in left],
                self._folder.scratch / "commands",
                partial(self._finished, asked, results, left, attempt),
                parallel=self._spec.parallel,
                timeout_seconds=self._spec.timeout_seconds,
            )
        return results

    def _finished(
        self,
        asked: Sequence[Asked],
        results: list[Result],
        left: Sequence[int],
        attempt: int,
        number: int,
        result: Result,
    ) -> None:
        """Writes down what came of a training."""
        one = asked[left[number]]
        results[left[number]] = result
        finite = result.loss is not None and math.isfinite(result.loss)
        problem = result.problem or ("" if finite else f"printed {result.loss}")
        if result.loss is not None:
            self._known[one.key] = result.loss
        self._folder.append_command(
            {
                "what": one.what,
                "key": one.key,
                "attempt": attempt + 1,
                "loss": result.loss if finite else None,
                "seconds": result.seconds,
                "problem": problem,
                "stderr": result.stderr,
            }
        )
        told = f"loss {result.loss:.6g}" if finite else f"the command {problem}"
        again = ", once more" if result.loss is None and attempt + 1 < ATTEMPTS else ""
        self._say(f"  {one.what}: {told}{again} ({result.seconds:.1f} s)")

    def _story(self, results: Sequence[Result]) -> str:
        """What went wrong last, and what to do."""
        failed = [r for r in results if r.loss is None or not math.isfinite(r.loss)][-1]
        problem = failed.problem or f"printed {failed.loss}"
        said = failed.stderr or "nothing"
        return (
            f"the last command {problem}; {self._folder.commands} has all of them; make it run, "
            f"then go on with --resume. Its standard error ends with:\n{said}"
        )


def external_trainer(
    training: InnerTraining, folder: RunFolder, say: Callable[[str], None]
) -> ExternalTrainer | None:
    """That of a recipe; None if the training is done here. Arguments as of `ExternalTrainer`."""
    spec = training.recipe.trainer
    return None if spec is None else ExternalTrainer(training, spec, folder, say)
