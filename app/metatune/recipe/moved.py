"""Fields of recipes that have another place or name now: the old one is refused with the new one.

So are those of the recipe.yaml of a run of then: it is neither misread nor gone on with.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from metatune.recipe.faults import ABSENT, Fault
from metatune.recipe.paths import joined


@dataclass(frozen=True)
class MovedField:
    """A field that has moved.

    Attributes:
        old: its path; `[]` stands for each item of a list.
        new: where it is now.
        why: a reason, after "because".
        cure: what to do; by default to write it there.
        value: of that value alone; `ABSENT` for all.
    """

    old: str
    new: str
    why: str
    cure: str = ""
    value: Any = ABSENT


NO_ESTIMATOR: Final = "a command trains, it is no estimator"
BESIDE: Final = (
    "write trainer: {command: ...}, with timeout_seconds and parallel, and leave directions, step "
    "and distribution here: {kind: zeroth_order, step: 0.1}"
)
NO_CHOICE: Final = "what is measured is no choice of the estimator's, nor of a phase's"

SPLITS: Final = "splits are called train, validation and test"
CHOSEN: Final = "the best is chosen on the validation split"
REPORTED: Final = "the result is measured on the test split"
HEAD: Final = "the head is one of multi-token prediction"

MOVED: Final = (
    MovedField("data.held_out.outer", "data.held_out.validation", SPLITS),
    MovedField("data.held_out.report", "data.held_out.test", SPLITS),
    MovedField("outer.judge", "outer.validation", CHOSEN),
    MovedField("outer.report", "outer.test", REPORTED),
    MovedField("inner.loss.auxiliary", "inner.loss.multi_token_prediction", HEAD),
    MovedField("tune.loss_terms.auxiliary", "tune.loss_terms.multi_token_prediction", HEAD),
    MovedField("outer.clip.auxiliary", "outer.clip.multi_token_prediction", HEAD),
    MovedField(
        "outer.optimizer.per_tunable.auxiliary",
        "outer.optimizer.per_tunable.multi_token_prediction",
        HEAD,
    ),
    MovedField(
        "outer.phases[].optimizer.per_tunable.auxiliary",
        "outer.phases[].optimizer.per_tunable.multi_token_prediction",
        HEAD,
    ),
    MovedField("outer.estimator.kind", "trainer", NO_ESTIMATOR, BESIDE, "external"),
    MovedField("outer.phases[].estimator.kind", "trainer", NO_ESTIMATOR, BESIDE, "external"),
    MovedField("outer.estimator.objective", "outer.objective.measure", NO_CHOICE),
    MovedField("outer.phases[].estimator.objective", "outer.objective.measure", NO_CHOICE),
)
"""All of them."""

ITEM: Final = re.compile(r"\[\d+\]|\.\d+(?=\.)")
"""An item of a list, as recipes and `metatune explain` write it."""


def refusal(path: str, value: Any) -> Fault | None:
    """The fault of a field that has moved; None of one that hasn't.

    Args:
        path: its dotted path.
        value: what it holds; `ABSENT` where only the path is known.
    """
    for moved in MOVED:
        if moved.old == ITEM.sub("[]", path) and moved.value in (ABSENT, value):
            problem = f"has moved to {moved.new}, because {moved.why}"
            return Fault(path, value, problem, moved.cure or "write it there")
    return None


def refusals(tree: Any, path: str = "") -> Iterator[Fault]:
    """The faults of all fields of a recipe that have moved.

    Args:
        tree: a recipe as plain values, or what stands in it at a path.
        path: that path.
    """
    if path and (fault := refusal(path, tree)):
        yield fault
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from refusals(value, joined(path, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from refusals(value, f"{path}[{number}]")


def refusals_of_flat(values: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults of values by dotted path, as `writing.flat` gives them, within what has moved."""
    for path, value in values.items():
        parts = path.split(".")
        above = (refusal(".".join(parts[: n + 1]), value) for n in range(len(parts)))
        if fault := next(filter(None, above), None):
            yield replace(fault, path=path)
