"""The tuned learning rates of the static_rates.json beside this file, under a trainer's own names.

from metatune_rates import groups

for group in groups(NAMES):
    print(group.rate, group.names)
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RATES = Path(__file__).with_name("static_rates.json")

ONE = 1e-9  # relative; rates that differ less are one


class Group(NamedTuple):
    """Parameters with one learning rate and one weight decay.

    Attributes:
        names: in the trainer.
        rate: at the peak of the schedule.
        last: at the end of training, on the base schedule.
        weight_decay: 0 where none applies.
        wd_mult: 1 where weight decay applies, 0 where it doesn't.
    """

    names: list[str]
    rate: float
    last: float
    weight_decay: float
    wd_mult: float

    @property
    def pattern(self) -> str:
        """A regular expression that `re.search` finds in exactly these names."""
        return f"^(?:{'|'.join(map(re.escape, self.names))})$"


def groups(names: Mapping[str, Sequence[str]], *, path: Path = RATES) -> list[Group]:
    """Groups of parameters, each parameter in exactly one.

    Args:
        names: for each parameter of the trainer, the parameters of the Hugging Face checkpoint
            that it holds: one, or those that are fused into it.
        path: the static_rates.json.

    Raises:
        ValueError: a name that isn't in the checkpoint, one of it that is nowhere, or parameters
            fused into one whose rates or weight decays differ. Nothing is made then.
    """
    held = json.loads(path.read_text(encoding="utf-8"))
    rates, decayed = held["parameters"], set(held["decayed"])
    _check(names, rates, decayed, path)
    found: dict[Any, list[str]] = {}
    for name, parts in names.items():
        found.setdefault((rates[parts[0]], parts[0] in decayed), []).append(name)
    ratio = held["last"] / held["peak"]
    decay = held["optimizer"]["weight_decay"]
    return [
        Group(members, rate, rate * ratio, decay if decays else 0.0, float(decays))
        for (rate, decays), members in found.items()
    ]


def _check(
    names: Mapping[str, Sequence[str]], rates: Mapping[str, float], decayed: set[str], path: Path
) -> None:
    problems = []
    for name, parts in names.items():
        unknown = [part for part in parts if part not in rates]
        for part in unknown:
            near = difflib.get_close_matches(part, rates, n=1)
            problems.append(f"{name}: {part} is not in {path}" + (f"; {near[0]}?" if near else ""))
        if not parts:
            problems.append(f"{name}: holds no parameter of the checkpoint")
        elif not unknown:
            each = [rates[part] for part in parts]
            if max(each) - min(each) > ONE * max(each):
                shown = ", ".join(f"{part} {rates[part]:.3g}" for part in parts)
                problems.append(f"{name}: its parts have different rates: {shown}")
            if len({part in decayed for part in parts}) > 1:
                problems.append(f"{name}: weight decay applies to some of its parts only")
    used = {part for parts in names.values() for part in parts}
    problems += [f"{name} of {path} is in no parameter" for name in rates if name not in used]
    if problems:
        raise ValueError("\n".join([f"{len(problems)} faults:", *(f"  {p}" for p in problems)]))
