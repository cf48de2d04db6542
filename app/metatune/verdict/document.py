"""`verdict.json`: who took part, what it cost, how the losses compare, and the words."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from metatune.artefact import Artefact
from metatune.artefact.files import VERDICT_FORMAT, VERDICT_VERSION
from metatune.ladder.judging import as_json
from metatune.verdict import points
from metatune.verdict.budget import Spent
from metatune.verdict.contestants import CONTESTANTS
from metatune.verdict.searching import Chosen
from metatune.verdict.statistics import ALPHA, DEFAULT, TUNED, Outcome
from metatune.verdict.words import Decision


class About(NamedTuple):
    """A contest, as far as a verdict tells of it.

    Attributes:
        tuned: the artefact of the run.
        peak: the recipe's peak learning rate; None where groups have their own.
        domains: that are trained on.
        spent: by the search of the run.
        course: of the run's search, as of `Chosen`.
        budget: inner steps of each contestant's search.
        resolution: half-width of an interval that is fine enough.
        refused: contestants that don't apply, each with why.
    """

    tuned: Artefact
    peak: float | None
    domains: tuple[str, ...]
    spent: Spent
    course: tuple[tuple[int, float], ...]
    budget: int
    resolution: float
    refused: Mapping[str, str]


class Told(NamedTuple):
    """All that a verdict says.

    Attributes:
        about: the contest.
        chosen: by the contestants, by their names.
        outcome: of the measurements.
        decision: in words.
        parts: what each part is worth, as plain values; None where it wasn't looked at.
        simplified: what the simple schedules are and keep, as plain values; None for none.
        simple: the simple schedules; None for none.
    """

    about: About
    chosen: Mapping[str, Chosen]
    outcome: Outcome
    decision: Decision
    parts: Mapping[str, Any] | None = None
    simplified: Mapping[str, Any] | None = None
    simple: Artefact | None = None


def document(told: Told) -> dict[str, Any]:
    """All of it, as plain JSON values; without times, so that it comes out the same again."""
    about, outcome, decision = told.about, told.outcome, told.decision
    worded = {
        name: each.point.words(about.peak, about.domains) for name, each in told.chosen.items()
    }
    rivals = [
        {
            **_of(name, told.chosen, worded),
            "losses": list(outcome.losses[name]),
            "behind_tuned": found._asdict(),
            "ahead_of_default": outcome.over_default[name]._asdict(),
        }
        for name, found in outcome.rivals.items()
        if name != DEFAULT
    ]
    return as_json(
        {
            "format": VERDICT_FORMAT,
            "version": VERDICT_VERSION,
            "recipe_sha256": about.tuned.provenance["recipe_sha256"],
            "best_outer_step": about.tuned.result["best_outer_step"],
            "unit": about.tuned.result["unit"],
            "word": decision.word,
            "rival": decision.rival,
            "sentence": decision.sentence(worded),
            "more_seeds": decision.more,
            "resolution": about.resolution,
            "seeds": outcome.seeds,
            "looks": [seeds for seeds in outcome.plan if seeds <= outcome.seeds],
            "planned_looks": list(outcome.plan),
            "level": ALPHA,
            "budget": about.budget,
            "tuned": {
                "losses": list(outcome.losses[TUNED]),
                "inner_steps": about.spent.inner_steps,
                "gradients": about.spent.gradients,
                "course": [list(each) for each in about.course],
            },
            "default": {"losses": list(outcome.losses[DEFAULT])},
            "gain": outcome.gain._asdict(),
            "rivals": rivals,
            "refused": [{"name": name, "why": why} for name, why in about.refused.items()],
            "parts": told.parts,
            "simple": told.simplified,
        }
    )


def _of(name: str, chosen: Mapping[str, Chosen], worded: Mapping[str, str]) -> dict[str, Any]:
    """Who a rival is, and what its search took."""
    if name not in chosen:
        return {"name": name, "summary": "the artefact of another run"}
    each = chosen[name]
    return {
        "name": name,
        "summary": CONTESTANTS[name].summary,
        "chosen": points.as_json(each.point),
        "words": worded[name],
        "validation": each.held_out,
        "trainings": each.trainings,
        "inner_steps": each.inner_steps,
        "gradients": each.inner_steps,  # one for each
        "course": [list(at) for at in each.course],
    }
