"""`verdict.json`: who took part, what it cost, how the losses compare, and the words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from metatune.artefact.files import VERDICT_FORMAT, VERDICT_VERSION
from metatune.ladder.judging import as_json
from metatune.verdict import points
from metatune.verdict.contestants import CONTESTANTS
from metatune.verdict.searching import Chosen
from metatune.verdict.statistics import ALPHA, DEFAULT, TUNED, Difference, Outcome
from metatune.verdict.words import Decision

if TYPE_CHECKING:
    from metatune.verdict.contest import Contest


class Told(NamedTuple):
    """All that a verdict says.

    Attributes:
        contest: that was held.
        chosen: by the contestants, by their names.
        outcome: of the measurements.
        decision: in words.
    """

    contest: "Contest"
    chosen: Mapping[str, Chosen]
    outcome: Outcome
    decision: Decision


def document(told: Told) -> dict[str, Any]:
    """All of it, as plain JSON values; without times, so that it comes out the same again."""
    contest, chosen, outcome, decision = told
    training = contest.trainings.training
    peak = training.recipe.inner.optimizer.learning_rate
    names = tuple(training.corpus.names)
    worded = {name: each.point.words(peak, names) for name, each in chosen.items()}
    rivals = []
    for name, found in outcome.rivals.items():
        if name == DEFAULT:
            continue
        own = {"name": name, "summary": "the artefact of another run"}
        if name in chosen:
            each = chosen[name]
            own = {
                "name": name,
                "summary": CONTESTANTS[name].summary,
                "chosen": points.as_json(each.point),
                "words": worded[name],
                "validation": each.held_out,
                "trainings": each.trainings,
                "inner_steps": each.inner_steps,
                "gradients": each.inner_steps,  # one for each
            }
        rivals.append(
            {
                **own,
                "losses": list(outcome.losses[name]),
                "behind_tuned": _plain(found),
                "ahead_of_default": _plain(outcome.over_default[name]),
            }
        )
    return as_json(
        {
            "format": VERDICT_FORMAT,
            "version": VERDICT_VERSION,
            "recipe_sha256": contest.tuned.provenance["recipe_sha256"],
            "best_outer_step": contest.tuned.result["best_outer_step"],
            "unit": contest.tuned.result["unit"],
            "word": decision.word,
            "rival": decision.rival,
            "sentence": decision.sentence(worded),
            "more_seeds": decision.more,
            "resolution": contest.resolution,
            "seeds": outcome.seeds,
            "looks": [seeds for seeds in outcome.plan if seeds <= outcome.seeds],
            "planned_looks": list(outcome.plan),
            "level": ALPHA,
            "budget": contest.budget,
            "tuned": {
                "losses": list(outcome.losses[TUNED]),
                "inner_steps": contest.spent.inner_steps,
                "gradients": contest.spent.gradients,
            },
            "default": {"losses": list(outcome.losses[DEFAULT])},
            "gain": _plain(outcome.gain),
            "rivals": rivals,
            "refused": [{"name": name, "why": why} for name, why in contest.refused.items()],
        }
    )


def _plain(found: Difference) -> dict[str, Any]:
    return found._asdict()
