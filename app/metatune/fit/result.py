"""The result of a run: measured once, on text and seeds never used before, and written down."""

import hashlib
import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import jax
import numpy as np

from metatune import artefact
from metatune.fit import holdings
from metatune.fit.checkpoints import Search
from metatune.fit.evaluation import Score
from metatune.fit.machine import packages
from metatune.fit.progress import Display
from metatune.fit.record import origin, record
from metatune.fit.sharing import record as shared
from metatune.inner import InnerTraining, Trajectory
from metatune.inner.seeds import Purpose
from metatune.recipe import schema, writing
from metatune.recipe.measures import unit
from metatune.tunables import (
    ClassWeights,
    Elements,
    Groups,
    Interpolation,
    LearnedUpdate,
    LearningRates,
    LossTerm,
    Rater,
    TokenClasses,
    Tunable,
)


class Measured(NamedTuple):
    """What measuring came to.

    Attributes:
        result: the artefact's `result`.
        record: of the first tuned training, to compare with when it is done again; None where the
            training is done elsewhere.
    """

    result: dict[str, Any]
    record: dict[str, Any] | None


def measure(
    training: InnerTraining,
    search: Search,
    display: Display,
    score: Score,
    programs: Sequence[str] = (),
) -> Measured:
    """Trains with the recipe's defaults and with the best found, on the same unseen seeds.

    Args:
        training: the inner training.
        search: the finished search.
        display: is told of every pair.
        score: how a training is done and measured.
        programs: that it compiles, as `Display.listener` takes them.

    Returns:
        The result, and a record of the first tuned training.
    """
    report = training.recipe.outer.test
    before, after = [], []
    curves: list[np.ndarray] = []
    for index in range(report.seeds):
        for losses, eta, what in (
            (before, training.initial_eta(), "default"),
            (after, search.best_eta, "tuned"),
        ):
            losses.append(
                score(
                    eta,
                    purpose=Purpose.TEST,
                    index=index,
                    split="test",
                    sequences=report.sequences,
                    listener=display.listener(f"test seed {index + 1}, {what}", programs),
                    keep=curves.append if losses is after and index == 0 else None,
                )
            )
        display.say(
            f"test seed {index + 1}/{report.seeds}  default {before[-1]:.4f}  tuned {after[-1]:.4f}"
        )
    result = {
        **_search_result(training, search, "complete"),
        "objective_before": float(np.mean(before)),
        "objective_after": float(np.mean(after)),
        **paired(before, after),
        "held_out_seeds": list(range(report.seeds)),
        "before": before,
        "after": after,
    }
    return Measured(result, record(curves[0]) if curves else None)


def unfinished(training: InnerTraining, search: Search) -> dict[str, Any]:
    """The artefact's `result` while the search goes on: nothing is measured yet."""
    return {
        **_search_result(training, search, "unfinished"),
        "objective_before": None,
        "objective_after": None,
        "difference": None,
        "standard_error": None,
        "held_out_seeds": [],
        "before": [],
        "after": [],
    }


def paired(before: list[float], after: list[float]) -> dict[str, float | None]:
    """Mean of the paired differences (negative is better) and its standard error.

    A single pair has no standard error.
    """
    differences = np.subtract(after, before)
    error = differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return {
        "difference": float(differences.mean()),
        "standard_error": None if error is None else float(error),
    }


def artefact_of(
    training: InnerTraining,
    eta: Mapping[str, jax.Array],
    result: Mapping[str, Any],
    recorded: Mapping[str, Any] | None = None,
) -> artefact.Artefact:
    """The artefact of meta-parameters: what every inner step used, under portable names.

    Args:
        training: the inner training.
        eta: meta-parameters.
        result: what was measured.
        recorded: of the tuned training that was measured first; None where none was.
    """
    recipe = training.recipe
    steps = recipe.inner.steps
    trajectory = training.trajectory(eta)
    tuned = {tunable.key: tunable for tunable in training.tunables}
    rates = np.stack(list(trajectory.learning_rates.values()))
    kept = _where_changed(rates.T)
    return artefact.Artefact(
        horizon_steps=steps,
        horizon_tokens=horizon(recipe)[1],
        learning_rates=artefact.LearningRates(
            knots=_fractions(kept, steps),
            interpolation="constant",
            parameters={
                name: curve[kept]
                for name, curve in zip(trajectory.learning_rates, rates, strict=True)
            },
            multipliers=_multipliers(tuned.get("learning_rates"), eta),
            elements=element_factors(tuned.get("learning_rates"), eta),
        ),
        mixture=(
            _shared(artefact.Mixture, training, trajectory.mixture) if "mixture" in tuned else None
        ),
        loss_weights=_loss_weights(training, tuned.get("loss_weights"), trajectory),
        optimizer=artefact.Optimizer(
            settings={
                key: value
                for key, value in asdict(recipe.inner.optimizer).items()
                if key not in ("learning_rate", "schedule", "decay")
            },
            decayed=training.decayed(),
            schedules=_optimizer_schedules(training, trajectory),
        ),
        provenance=provenance(training),
        result=dict(result),
        origin=origin(training, eta, recorded),
        loss_terms=_loss_terms(training, trajectory),
        initialisation=_initialisation(training, tuned.get("initialisation"), eta),
        learned_update=_learned_update(tuned.get("learned_update"), eta),
        rater=_rater(training, tuned.get("rater"), eta),
    )


def horizon(recipe: schema.Recipe) -> tuple[int, int]:
    """Updates and tokens of the training of a recipe."""
    steps = recipe.inner.steps
    return steps, steps * recipe.data.batch_size * recipe.data.sequence_length


def provenance(training: InnerTraining) -> dict[str, Any]:
    """What the artefact came from: hashes of all that went in, and versions."""
    recipe, corpus = training.recipe, training.corpus
    return {
        "metatune": importlib.metadata.version("metatune"),
        "recipe_sha256": hashlib.sha256(writing.to_yaml(recipe).encode()).hexdigest(),
        "tokenizer_sha256": corpus.tokenizer.sha256,
        "domains": holdings.provenance(training),
        "data_sha256": {domain.name: domain.sha256 for domain in corpus.measured},
        "target": {
            domain.name: float(weight)
            for domain, weight in zip(corpus.measured, corpus.target, strict=True)
        },
        "model_config": training.model.config_json(),
        "vocab_size": training.model.config.vocab_size,
        **({"weights_sha256": training.weights_sha256} if training.weights_sha256 else {}),
        **(
            {"checkpoints_sha256": dict(training.checkpoints_sha256)}
            if training.checkpoints_sha256
            else {}
        ),
        **({"lora": asdict(recipe.inner.lora)} if recipe.inner.lora else {}),
        "packages": packages(),
    }


def _search_result(training: InnerTraining, search: Search, status: str) -> dict[str, Any]:
    outer = training.recipe.outer
    return {
        "status": status,
        "unit": unit(training.recipe),
        "best_outer_step": search.best_step,
        "outer_steps": search.step,
        **({} if outer.ema is None else {"best_is_average": search.best_averaged}),
        **({"sharing": shared(search)} if search.shared else {}),
    }


def _where_changed(rows: np.ndarray) -> np.ndarray:
    """Indices of the rows that differ from the one before, the first included."""
    changed = np.any(rows[1:] != rows[:-1], axis=1)
    return np.concatenate([[0], 1 + np.flatnonzero(changed)])


def _fractions(steps: np.ndarray, horizon: int) -> tuple[float, ...]:
    return tuple(float(step / horizon) for step in steps)


def _shared(kind: Any, training: InnerTraining, rows: np.ndarray) -> Any:
    kept = _where_changed(rows)
    return kind(
        knots=_fractions(kept, training.recipe.inner.steps),
        interpolation="constant",
        domains=training.corpus.names,
        weights=rows[kept],
    )


def _loss_weights(
    training: InnerTraining, tunable: Tunable | None, trajectory: Trajectory
) -> artefact.LossWeights | artefact.ClassWeights | None:
    if tunable is None:
        return None
    if not isinstance(tunable, ClassWeights) or trajectory.class_weights is None:
        return _shared(artefact.LossWeights, training, trajectory.loss_weights)
    shares = np.asarray(tunable.shares) / np.sum(tunable.shares)
    rows = trajectory.class_weights[:, list(tunable.occurring)]
    kept = _where_changed(rows)
    return artefact.ClassWeights(
        knots=_fractions(kept, training.recipe.inner.steps),
        interpolation="constant",
        classes=tunable.names,
        shares=shares,
        weights=rows[kept] / (rows[kept] @ shares)[:, None],  # which float32 has rounded
        of=_classes_of(tunable.classes),
    )


def _classes_of(
    classes: TokenClasses,
) -> artefact.Positions | artefact.Vocabulary | artefact.Labels | None:
    if classes.table is None:
        return artefact.Labels() if classes.per == "label" else None
    if classes.per == "frequency":
        return artefact.Vocabulary(classes.table)
    starts = 1 + np.searchsorted(classes.table, np.arange(len(classes.names)))
    return artefact.Positions(1 + len(classes.table), tuple(map(int, starts)))


def _optimizer_schedules(
    training: InnerTraining, trajectory: Trajectory
) -> artefact.OptimizerSchedules | None:
    """What was tuned of the optimizer, as every inner step used it."""
    values = dict(trajectory.optimizer)
    if not values:
        return None
    decay = values.pop("weight_decay", None)
    kept = _where_changed(np.stack([*values.values(), *(decay or {}).values()], axis=1))
    return artefact.OptimizerSchedules(
        knots=_fractions(kept, training.recipe.inner.steps),
        interpolation="constant",
        values={name: curve[kept] for name, curve in values.items()},
        weight_decay=decay and {name: curve[kept] for name, curve in decay.items()},
    )


def _loss_terms(training: InnerTraining, trajectory: Trajectory) -> artefact.LossTerms | None:
    """What the loss had beside the next token's term, as every inner step used it."""
    values = trajectory.loss_terms
    if not values:
        return None
    kept = _where_changed(np.stack(list(values.values()), axis=1))
    return artefact.LossTerms(
        knots=_fractions(kept, training.recipe.inner.steps),
        interpolation="constant",
        values={name: curve[kept] for name, curve in values.items()},
        tuned=tuple(tunable.key for tunable in training.tunables if isinstance(tunable, LossTerm)),
    )


def _initialisation(
    training: InnerTraining, tunable: Tunable | None, eta: Mapping[str, jax.Array]
) -> artefact.Initialisation | None:
    """What the tuned trainings start from, if that was tuned."""
    weights = training.start(eta)
    if weights is None or tunable is None:
        return None
    if not isinstance(tunable, Interpolation):
        return artefact.Initialisation("point", weights)
    rows = np.asarray(tunable.coefficients(eta[tunable.key]), np.float64).tolist()
    coefficients = {
        source: dict(zip(tunable.groups.labels, row, strict=True))
        for source, row in zip(tunable.checkpoints, rows, strict=True)
    }
    between = artefact.Interpolated(coefficients, tunable.groups.members)
    return artefact.Initialisation("interpolation", weights, between)


def _learned_update(
    tunable: Tunable | None, eta: Mapping[str, jax.Array]
) -> artefact.LearnedUpdate | None:
    if not isinstance(tunable, LearnedUpdate):
        return None
    form = tunable.form
    networks = tunable.networks(eta[tunable.key])._asdict()
    return artefact.LearnedUpdate(
        groups=tunable.groups.members,
        decays=form.decays,
        second_moment_decay=form.second_moment_decay,
        time_scales=form.time_scales,
        max_multiplier=form.max_multiplier,
        step_size="kept" if form.keeps_size else "learned",
        # Without the last, that of parameters in no group.
        **{name: np.asarray(rows, np.float32)[:-1] for name, rows in networks.items()},
    )


def _multipliers(tunable: Any, eta: Mapping[str, jax.Array]) -> artefact.Multipliers | None:
    if not isinstance(tunable, LearningRates) or not isinstance(tunable.cells, Groups):
        return None
    values = tunable.multipliers(np.asarray(eta[tunable.key]))
    return artefact.Multipliers(
        tunable.knots,
        groups={
            label: tuple(map(float, values[:, i])) for i, label in enumerate(tunable.cells.labels)
        },
        members=tunable.cells.members,
        interpolation=tunable.interpolation,
    )


def _rater(
    training: InnerTraining, tunable: Tunable | None, eta: Mapping[str, jax.Array]
) -> artefact.Rater | None:
    if not isinstance(tunable, Rater):
        return None
    rating = tunable.rating
    return artefact.Rater(
        {
            **asdict(rating.spec),
            "vocab_size": rating.vocab_size,
            "sequence_length": training.corpus.sequence_length,
        },
        rating.by_name(rating.unravelled(eta[tunable.key])),
    )


def element_factors(
    tunable: Tunable | None, eta: Mapping[str, jax.Array]
) -> artefact.ElementFactors | None:
    """What was tuned within parameters, if anything was."""
    if not isinstance(tunable, LearningRates) or not isinstance(tunable.cells, Elements):
        return None
    values = tunable.multipliers(np.asarray(eta[tunable.key])).astype(np.float32)
    return artefact.ElementFactors(
        tunable.knots, tunable.interpolation, tunable.cells.by_name(values)
    )
