"""Trains again from an artefact alone, on the seeds of its result, and compares the numbers.

On a machine of the recorded type every number must come back bit for bit. Elsewhere sums are
rounded in another order, and training blows that up as it does any small change of its start: at
worst a training becomes one of another seed. So the band is the spread over the test seeds: the
held-out loss of a seed may move by their sample standard deviation s, and the mean over n seeds by
its standard error, s / √n.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from metatune import artefact
from metatune.artefact import Artefact, ArtefactError, Origin
from metatune.artefact.files import TUNED
from metatune.fit.inputs import INPUTS
from metatune.fit.making import artefact_of, provenance
from metatune.fit.process.agreement import refuse_different
from metatune.fit.process.machine import differences, machine, repeats_itself
from metatune.fit.replaying.record import meta_parameters
from metatune.fit.telling.progress import SearchDisplay, tokenizing
from metatune.fit.telling.waits import TRAINING
from metatune.fit.trainers.evaluation import held_out_loss
from metatune.fit.trainers.failure import NotFinite
from metatune.inner import InnerTraining, prepare_file
from metatune.inner.seeds import Purpose
from metatune.recipe import reading
from metatune.recipe.faults import ABSENT, Fault
from metatune.runs import processes
from metatune.runs.inputs import flat

COMPARED = ("recipe_sha256", *INPUTS)
"""Of the provenance: what must be the same before anything is trained."""

SCHEDULES = ("horizon", "learning_rates", "mixture", "loss_weights", "optimizer", "loss_terms")
"""Keys of every tuned.json that follow from recipe and meta-parameters."""

ROUNDING = 1e-5
"""Relative: what a few roundings of float32 in another order may change of a schedule."""


class Band(NamedTuple):
    """How far held-out losses may be from those that were recorded.

    Attributes:
        seed: of each seed.
        mean: of the mean over the seeds.
    """

    seed: float
    mean: float


@dataclass(frozen=True)
class Replay:
    """What training again came to.

    Attributes:
        machines: what isn't the same of the two machines, a line each.
        repeats: whether this machine gives the same bits each time.
        band: where bits needn't agree; None where they must.
        schedules: the fields of tuned.json that aren't those of the meta-parameters.
        seeds: of the trainings.
        recorded: held-out losses, one for each seed.
        replayed: the same, trained again; infinite of a training that diverged.
        steps: inner steps of the first seed whose training losses were recorded.
        recorded_losses: these, [steps].
        replayed_losses: the same, trained again.
    """

    machines: tuple[str, ...]
    repeats: bool
    band: Band | None
    schedules: tuple[str, ...]
    seeds: tuple[int, ...]
    recorded: tuple[float, ...]
    replayed: tuple[float, ...]
    steps: tuple[int, ...]
    recorded_losses: tuple[float, ...]
    replayed_losses: tuple[float, ...]

    @property
    def bit_for_bit(self) -> bool:
        """Whether every number came back as it was recorded."""
        losses = self.recorded == self.replayed and self.recorded_losses == self.replayed_losses
        return losses and not self.schedules

    @property
    def agrees(self) -> bool:
        """Whether the numbers are those that were recorded, within the band if there is one."""
        if self.bit_for_bit or self.band is None:
            return self.bit_for_bit
        apart = np.subtract(self.replayed, self.recorded)
        near = bool(np.all(np.abs(apart) <= self.band.seed))
        return near and abs(float(apart.mean())) <= self.band.mean and not self.schedules

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values; a number that isn't finite is null."""
        return {
            "agrees": self.agrees,
            "bit_for_bit": self.bit_for_bit,
            "machine_differs": list(self.machines),
            "machine_repeats_itself": self.repeats,
            "band": self.band and self.band._asdict(),
            "schedules_differ": list(self.schedules),
            "held_out": _compared("seeds", self.seeds, self.recorded, self.replayed),
            "training": {
                "seed": self.seeds[0],
                **_compared("steps", self.steps, self.recorded_losses, self.replayed_losses),
            },
        }


Settle = Callable[[InnerTraining], tuple[InnerTraining, str]]
"""Chooses the devices of a recipe that leaves them open; returns why, empty for no reason."""


def replay(
    run: Path, console: Console, devices: Sequence[str] = (), settle: Settle | None = None
) -> Replay:
    """Trains again what an artefact was measured by; of several processes, all of them together.

    Args:
        run: a run folder, an artefact folder, or a tuned.json.
        console: where progress is shown.
        devices: overrides of the recipe's.
        settle: on another type of machine, of a recipe that leaves them open; None for as many as
            divide its batches.

    Raises:
        ProcessesError: they have other artefacts, data or packages.
        ArtefactError: it can't be trained again: a file was changed, the artefact has no record, or
            data, tokenizer or weights aren't those that were recorded.
        RecipeError: its recipe names what isn't there.
    """
    tuned = artefact.load(run)
    folder = artefact.folder_of(run)
    held, recorded = _recorded(tuned, folder)
    with tokenizing(console) as listener:
        training = prepare_file(folder / artefact.RECIPE, devices, listener)
    refuse_different(training, devices=" ".join(devices), artefact=_hash(folder))
    here = machine()
    machines = processes.either(differences(recorded["machine"], here))
    if settle is not None and machines:  # on the same, what the recipe says was enough
        training, why = settle(training)
        if why:
            console.print(why, highlight=False, soft_wrap=True)
    then = reading.read(folder / artefact.RECIPE).devices
    as_it_was = replace(training, recipe=replace(training.recipe, devices=then))
    refuse_others(tuned.provenance, provenance(as_it_was), str(folder))
    eta = meta_parameters(training, held)
    if then != training.recipe.devices:
        machines += (f"devices: {then} recorded, {training.recipe.devices} here",)
    exact = not machines and repeats_itself(here)
    again = artefact_of(training, eta, tuned.result)
    with (
        processes.uncut() as hold,
        SearchDisplay(
            console,
            len(tuned.result["after"]),
            what="test seeds",
            between=partial(processes.end_together, hold),
        ) as display,
    ):
        display.say(_announcement(tuned, machines, exact))
        losses, curve = _trained(training, eta, tuned.result, display)
    steps = recorded["training"]["steps"]
    return Replay(
        machines,
        repeats_itself(here),
        None if exact else band(tuned.result["after"]),
        tuple(differing(_schedules(tuned), _schedules(again), 0.0 if exact else ROUNDING)),
        tuple(tuned.result["held_out_seeds"]),
        tuple(tuned.result["after"]),
        tuple(losses),
        tuple(steps),
        tuple(recorded["training"]["losses"]),
        tuple(curve[steps].astype(np.float64).tolist()),
    )


def band(recorded: list[float]) -> Band:
    """The band about held-out losses of several seeds; of one seed, which has no spread, none."""
    if len(recorded) < 2:
        return Band(0.0, 0.0)
    spread = float(np.std(recorded, ddof=1))
    return Band(spread, spread / math.sqrt(len(recorded)))


def refuse_others(recorded: Mapping[str, Any], here: Mapping[str, Any], source: str) -> None:
    """What is trained again must be what was trained.

    Args:
        recorded: the artefact's provenance.
        here: the provenance of a training from its recipe.
        source: what errors call the artefact.

    Raises:
        ArtefactError: naming each hash that isn't the same.
    """
    theirs, ours = (flat({key: side.get(key) for key in COMPARED}) for side in (recorded, here))
    faults = [
        Fault(
            f"provenance.{key}",
            theirs.get(key, ABSENT),
            f"was recorded; here it is {ours.get(key)!r}",
            "replay with what the run was made of",
        )
        for key in dict.fromkeys([*theirs, *ours])
        if theirs.get(key) != ours.get(key)
    ]
    if faults:
        raise ArtefactError(source, faults)


def differing(one: Any, other: Any, tolerance: float, path: str = "") -> list[str]:
    """Dotted paths of the values of two JSON documents that differ.

    Args:
        one: a document.
        other: to compare with.
        tolerance: relative, of numbers.
        path: of the two.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = list(dict.fromkeys([*one, *other]))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        keys = list(range(len(one)))
    elif isinstance(one, int | float) and isinstance(other, int | float):
        return [] if math.isclose(one, other, rel_tol=tolerance) else [path]
    else:
        return [] if one == other else [path]
    found = []
    for key in keys:
        here = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".lstrip(".")
        if isinstance(one, Mapping) and (key not in one or key not in other):
            found.append(here)
        else:
            found += differing(one[key], other[key], tolerance, here)
    return found


def _recorded(tuned: Artefact, folder: Path) -> tuple[Origin, Mapping[str, Any]]:
    """What the artefact can be trained again from, and what it records of that."""
    held = tuned.origin
    if held is None:
        problem = "isn't in the artefact, which is an export's, or which an older metatune wrote"
        cure = "give the run instead of its export, or run `metatune fit` with its recipe anew"
        raise ArtefactError(str(folder), [Fault(artefact.RECIPE, ABSENT, problem, cure)])
    if tuned.result.get("status") != "complete":
        problem = "nothing is measured yet, so that there is nothing to compare with"
        cure = "finish it with `metatune fit --resume`"
        raise ArtefactError(str(folder), [Fault("result.status", "unfinished", problem, cure)])
    if held.record is None:
        problem = "isn't in the artefact: its trainings were done elsewhere, by a command"
        cure = "run that command with tuned.json instead"
        raise ArtefactError(str(folder), [Fault(artefact.REPLAY, ABSENT, problem, cure)])
    return held, held.record


def _announcement(tuned: Artefact, machines: tuple[str, ...], exact: bool) -> str:
    where = "on the same type of machine" if not machines else "on another type of machine"
    how = "bit for bit" if exact else "within the spread over the seeds"
    count = len(tuned.result["after"])
    return f"{count} trainings of {tuned.horizon_steps} steps {where}, {how}; compiling ..."


def _trained(
    training: InnerTraining,
    eta: Mapping[str, jax.Array],
    result: Mapping[str, Any],
    display: SearchDisplay,
) -> tuple[list[float], np.ndarray]:
    """Held-out losses of all test seeds, and the training losses of the first, [steps]."""
    losses: list[float] = []
    curves: list[np.ndarray] = []
    for number, index in enumerate(result["held_out_seeds"]):
        try:
            loss = held_out_loss(
                training,
                eta,
                purpose=Purpose.TEST,
                index=index,
                split="test",
                sequences=training.recipe.outer.test.sequences,
                listener=display.listener(f"test seed {index + 1}", TRAINING),
                keep=curves.append,
            )
        except NotFinite as error:
            display.say(str(error))
            loss = math.inf
        losses.append(loss)
        was = result["after"][number]
        display.done(number + 1)
        display.say(
            f"test seed {number + 1}/{len(result['after'])}  recorded {was:.6f}  "
            f"replayed {loss:.6f}  {'bit for bit' if loss == was else f'{loss - was:+.3g}'}"
        )
    return losses, curves[0]


def _hash(folder: Path) -> str:
    """Of tuned.json, which has those of all files beside it."""
    return hashlib.sha256((folder / TUNED).read_bytes()).hexdigest()


def _schedules(tuned: Artefact) -> dict[str, Any]:
    elements, learned = tuned.learning_rates.elements, tuned.learned_update
    coarse = replace(
        tuned,
        learning_rates=replace(tuned.learning_rates, elements=None),
        initialisation=None,
        learned_update=None,
        rater=None,
    )
    document = json.loads(artefact.self_contained(coarse))
    schedules = {key: document.get(key) for key in SCHEDULES}
    if elements is not None:
        schedules["elements"] = {
            name: factors.tolist() for name, factors in elements.parameters.items()
        }
    if (start := tuned.initialisation) is not None:
        schedules["initialisation"] = {
            name: weights.tolist() for name, weights in start.parameters.items()
        }
    if learned is not None:
        weights = {name: tensor.tolist() for name, tensor in learned.tensors.items()}
        schedules["learned_update"] = json.loads(json.dumps(learned.document())) | weights
    if tuned.rater is not None:
        schedules["rater"] = {
            **tuned.rater.settings,
            **{name: held.tolist() for name, held in tuned.rater.parameters.items()},
        }
    return schedules


def _compared(
    name: str, places: tuple[int, ...], recorded: tuple[float, ...], replayed: tuple[float, ...]
) -> dict[str, Any]:
    apart = np.abs(np.subtract(replayed, recorded))
    return {
        name: list(places),
        "recorded": list(recorded),
        "replayed": [loss if math.isfinite(loss) else None for loss in replayed],
        "largest_difference": float(apart.max()) if np.isfinite(apart).all() else None,
    }
