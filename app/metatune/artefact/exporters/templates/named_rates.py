"""The tuned learning rates of the tuned.json beside this file, under a trainer's own names.

    from metatune_rates import groups

    for group in groups():
        print(group.rate, group.names)

Where static_rates.json knows the trainer's names for this model, `groups()` takes them; otherwise
give `names`: for each parameter of the trainer, those of the Hugging Face checkpoint that it holds.
"""

import bisect
import difflib
import functools
import json
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RATES = Path(__file__).with_name("static_rates.json")
TUNED = Path(__file__).with_name("tuned.json")

STEP_TOLERANCE = 1e-6  # of a step: a knot k/T times a total T may miss k by rounding
ONE = 1e-9  # relative; rates that differ less are one

WRAPPERS = frozenset(
    (
        "_checkpoint_wrapped_module",
        "_fsdp_wrapped_module",
        "_orig_mod",
        "base_layer",
        "modules_to_save",
        "module",
    )
)
"""Parts of names that wrappers add: activation checkpointing, FSDP, compile, PEFT, DDP."""


class Group(NamedTuple):
    """Parameters with one learning rate, one curve and one weight decay.

    Attributes:
        names: in the trainer.
        rate: at the peak of the schedule, absolute, per update.
        last: at the end of training, on the base schedule.
        weight_decay: 0 where none applies; the optimizer multiplies it by the rate.
        wd_mult: 1 where weight decay applies, 0 where it doesn't.
        numbers: of the optimizer, as PyTorch names them: `betas` and `eps`, or `momentum`.
        curve: the rates at the knots, absolute.
    """

    names: list[str]
    rate: float
    last: float
    weight_decay: float
    wd_mult: float
    numbers: dict[str, Any]
    curve: tuple[float, ...]


def groups(
    names: Mapping[str, Sequence[str]] | None = None, *, fused: str = "refuse", path: Path = RATES
) -> list[Group]:
    """Groups of parameters, each parameter in exactly one.

    Args:
        names: for each parameter of the trainer, the parameters of the Hugging Face checkpoint
            that it holds: one, or those that are fused into it. By default those of
            static_rates.json.
        fused: what to do with parameters fused into one whose rates differ: `refuse` them, or give
            them the `mean`, in log space, weighted by their sizes. How far off it is, is warned.
        path: the static_rates.json.

    Raises:
        ValueError: no names are known, a name that isn't in the checkpoint, one of it that is
            nowhere, or parameters fused into one whose weight decays, optimizers, or rates, differ.
            Nothing is made then.
    """
    held, tuned = _read(path), _read(path.with_name(TUNED.name))
    names = held["names"] if names is None else names
    if names is None:
        raise ValueError(f"{path}: doesn't know this model's names in the trainer: give `names`")
    if fused not in ("refuse", "mean"):
        raise ValueError(f"fused {fused!r}: must be 'refuse' or 'mean'")
    peaks, curves = held["parameters"], tuned["learning_rates"]["parameters"]
    settings, decayed = tuned["optimizer"], set(tuned["optimizer"]["decayed"])
    several = settings.get("groups", ())
    place = {name: at for at, group in enumerate(several) for name in group["parameters"]}
    _check(names, curves, decayed, place, fused, path)
    ratio = held["last"] / held["peak"]
    found: dict[Any, Group] = {}
    for name, parts in names.items():
        weights = [(held["sizes"] or {}).get(part, 1) for part in parts]
        columns = zip(*(curves[part] for part in parts), strict=True)
        curve = tuple(_mean(values, weights) for values in columns)
        rate, decays = _mean([peaks[part] for part in parts], weights), parts[0] in decayed
        if (off := _off(parts, curves, curve)) > ONE:
            warnings.warn(
                f"{name}: its parts have one rate, off by up to {100 * off:.3g} %", stacklevel=2
            )
        at = place.get(parts[0])
        own = settings if at is None else several[at]
        decay = own["weight_decay"] if decays else 0.0
        new = Group([], rate, rate * ratio, decay, float(decays), _numbers(own), curve)
        found.setdefault((curve, decays, at), new).names.append(name)
    return list(found.values())


def rate_at(group: Group, step: int, total_steps: int, *, path: Path = TUNED) -> float:
    """The rate of a group at update `step`, 0 for the first, of `total_steps`."""
    if step < 0 or total_steps < 1:
        raise ValueError(f"step {step} of {total_steps}: steps count from 0, totals from 1")
    rates = _read(path)["learning_rates"]
    knots = rates["knots"]
    before = bisect.bisect_right(knots, (step + STEP_TOLERANCE) / total_steps) - 1
    if rates["interpolation"] == "constant" or before == len(knots) - 1:
        return group.curve[before]
    along = max(0.0, step / total_steps - knots[before]) / (knots[before + 1] - knots[before])
    return (1 - along) * group.curve[before] + along * group.curve[before + 1]


def bare(name: str) -> str:
    """A parameter's name without what wrappers of modules add to it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def assigned(made: Sequence[Group], present: Collection[str]) -> dict[str, Group]:
    """The group of each parameter that is present, by its name as it is.

    Args:
        made: by `groups`.
        present: names of trainable parameters, wrapped or not, of the model or a part of it.

    Raises:
        ValueError: a parameter that is in no group.
    """
    by_name = {name: group for group in made for name in group.names}
    lacking = [name for name in present if bare(name) not in by_name]
    if lacking:
        near = difflib.get_close_matches(bare(lacking[0]), by_name, n=1)
        hint = f"; nearest: {near[0]}" if near else ""
        raise ValueError(f"{len(lacking)} parameters are in no group: {lacking[0]}, ...{hint}")
    return {name: by_name[bare(name)] for name in present}


def refuse_absent(made: Sequence[Group], present: Collection[str]) -> None:
    """Refuses groups whose parameters are in no part of the model.

    Args:
        made: by `groups`.
        present: names of the parameters of all its parts, frozen ones too.

    Raises:
        ValueError: a name of a group matches no parameter.
    """
    there = set(map(bare, present))
    absent = [name for group in made for name in group.names if name not in there]
    if absent:
        raise ValueError(f"{len(absent)} names match no parameter of the model: {absent[0]}, ...")


def _numbers(settings: Mapping[str, Any]) -> dict[str, Any]:
    if settings["kind"] == "adamw":
        return {"betas": (settings["b1"], settings["b2"]), "eps": settings["eps"]}
    return {"momentum": settings["momentum"], "nesterov": settings["nesterov"]}


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """The mean in log space; the value itself where there is but one."""
    if len(set(values)) == 1:
        return values[0]
    if min(values) <= 0:
        return 0.0
    logs = (weight * math.log(value) for value, weight in zip(values, weights, strict=True))
    return math.exp(math.fsum(logs) / math.fsum(weights))


def _off(parts: Sequence[str], curves: Mapping[str, Sequence[float]], curve: Any) -> float:
    """How far a curve is from those of its parts, relative to theirs, at most."""
    pairs = [pair for part in parts for pair in zip(curve, curves[part], strict=True)]
    return max(abs(one / own - 1) if own else (math.inf if one else 0.0) for one, own in pairs)


def _check(
    names: Mapping[str, Sequence[str]],
    curves: Mapping[str, Sequence[float]],
    decayed: set[str],
    place: Mapping[str, int],
    fused: str,
    path: Path,
) -> None:
    problems = []
    for name, parts in names.items():
        unknown = [part for part in parts if part not in curves]
        for part in unknown:
            near = difflib.get_close_matches(part, curves, n=1)
            problems.append(f"{name}: {part} is not in {path}" + (f"; {near[0]}?" if near else ""))
        if not parts:
            problems.append(f"{name}: holds no parameter of the checkpoint")
        elif not unknown:
            if fused == "refuse" and _off(parts, curves, curves[parts[0]]) > ONE:
                shown = ", ".join(f"{part} {max(curves[part]):.3g}" for part in parts)
                problems.append(
                    f"{name}: its parts have different rates: {shown}; take their mean "
                    "(fused='mean'), or tune them as one group"
                )
            if len({part in decayed for part in parts}) > 1:
                problems.append(f"{name}: weight decay applies to some of its parts only")
            if len({place.get(part) for part in parts}) > 1:
                problems.append(f"{name}: its parts are of several of the tuned optimizers")
    used = {part for parts in names.values() for part in parts}
    problems += [f"{name} of {path} is in no parameter" for name in curves if name not in used]
    if problems:
        raise ValueError("\n".join([f"{len(problems)} faults:", *(f"  {p}" for p in problems)]))


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
