"""What the domains of a training hold, and how often it reads them."""

from collections.abc import Iterator
from typing import Any

from metatune.data import FEW_REPEATS, remarks
from metatune.inner import InnerTraining

COLUMNS = ("documents", "tokens", "bytes per token", "duplicates", "in other domains", "epochs")


def epochs(training: InnerTraining) -> dict[str, float]:
    """How often each domain is read over the horizon, at the shares that the recipe starts with."""
    shares = training.trajectory(training.initial_eta()).mixture
    return training.corpus.repeats(shares, training.recipe.data.batch_size)


def repeated(training: InnerTraining) -> Iterator[str]:
    """A warning for each domain that is read too often for repetition to be harmless."""
    for name, times in epochs(training).items():
        if times > FEW_REPEATS:
            yield (
                f"warning: domain {name} is read {times:.1f} times; repeated more than "
                f"{FEW_REPEATS} times, text is worth less than fresh text"
            )


def rendered(training: InnerTraining) -> Iterator[str]:
    """A line for each thing that a user should know of how the text became tokens."""
    yield from remarks(training.recipe.data, training.corpus.tokenizer)


def copied(training: InnerTraining) -> Iterator[str]:
    """A line for each domain with exact copies of documents, which fall on the same side."""
    for name, its in training.corpus.statistics.items():
        if its.duplicates or its.shared:
            yield (
                f"domain {name}: of {its.documents:,} documents {its.duplicates:,} copy others of "
                f"it, {its.shared:,} stand in other domains too"
            )


def table(training: InnerTraining) -> str:
    """The domains as a table in Markdown."""
    times = epochs(training)
    rows = [
        (
            name,
            f"{its.documents:,}",
            f"{its.tokens:,}",
            f"{its.bytes_per_token:.2f}",
            f"{its.duplicates:,}",
            f"{its.shared:,}",
            f"{times.get(name, 0.0):.2f}",
        )
        for name, its in training.corpus.statistics.items()
    ]
    heads = [f"| domain | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    return "\n".join([*heads, *(f"| {' | '.join(row)} |" for row in rows)])


def provenance(training: InnerTraining) -> dict[str, dict[str, Any]]:
    """What the artefact says of the domains."""
    times = epochs(training)
    return {
        name: {
            "documents": its.documents,
            "tokens": its.tokens,
            "bytes_per_token": round(its.bytes_per_token, 3),
            "epochs": round(times.get(name, 0.0), 3),
        }
        for name, its in training.corpus.statistics.items()
    }
