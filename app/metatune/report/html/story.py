"""The chapters of a page in their order, and the sentence on top."""

from typing import NamedTuple

from metatune.report.artefact_readme import horizon, verdict, what_is_tuned
from metatune.report.html import (
    certificate,
    contest,
    cost,
    ladder,
    result,
    schedules,
    search,
    usage,
)
from metatune.report.html.parts import Chapter
from metatune.report.html.sources import Sources
from metatune.report.search import divergences


class Story(NamedTuple):
    """A page.

    Attributes:
        title: of it.
        verdict: what to do, in a sentence.
        facts: what diverged, what was tuned, and for how long a training.
        chapters: all else.
    """

    title: str
    verdict: str
    facts: list[str]
    chapters: list[Chapter]


def story(found: Sources) -> Story:
    """All that there is to say of a run."""
    tuned = found.artefact
    facts = divergences(found.metrics)
    facts += [] if tuned is None else [*what_is_tuned(tuned), f"horizon: {horizon(tuned)}"]
    chapters = [
        result.chapter(found),
        contest.chapter(found),
        contest.parts(found),
        search.chapter(found),
        *([] if tuned is None else schedules.chapters(tuned)),
        certificate.chapter(found),
        cost.chapter(found),
        ladder.chapter(found),
        usage.exports(found),
        usage.provenance(found),
    ]
    return Story(
        found.name, _verdict(found), facts, [each for each in chapters if each and _says(each)]
    )


def _says(chapter: Chapter) -> bool:
    """Whether there is more to a chapter than its title."""
    return any((chapter.lines, chapter.rows, chapter.tables, chapter.commands))


def _verdict(found: Sources) -> str:
    """The outcome of the contest; else that of the measurement; else how far the search is."""
    if found.artefact is None:
        count = len(found.metrics)
        points = f"{count} point{'s' * (count != 1)} of the search" if count else "nothing"
        return f"under way, or stopped: {points} recorded, nothing judged yet"
    if found.artefact.verdict is not None:
        return found.artefact.verdict["sentence"]
    return verdict(found.artefact.result)
