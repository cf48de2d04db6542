"""What an exporter is, and what all of them share: templates, and the words of a README."""

from collections.abc import Callable, Mapping
from importlib import resources
from string import Template
from typing import NamedTuple

from metatune.artefact.format import TUNED, Artefact, ClassWeights
from metatune.artefact.writing import self_contained

MODULE = "metatune_schedules.py"


class Exporter(NamedTuple):
    """A target that tuned schedules can be exported to.

    Attributes:
        name: on the command line.
        summary: what the export holds, in one line.
        files: the contents by file name; the folder works where metatune isn't installed.
    """

    name: str
    summary: str
    files: Callable[[Artefact], Mapping[str, bytes | str]]


def export_files(artefact: Artefact, readme: str, module: str | None) -> dict[str, bytes | str]:
    """The files of an export: README.md, the module if there is one, and tuned.json.

    Args:
        artefact: whose numbers all go into tuned.json.
        readme: name of the template of README.md, and of that on weights of classes of tokens.
        module: name of the template of metatune_schedules.py.
    """
    files: dict[str, bytes | str] = {
        "README.md": Template(template(f"{readme}.md")).substitute(
            facts=_facts(artefact),
            steps=artefact.horizon_steps,
            clip=_clip(artefact),
            max_grad_norm=artefact.optimizer.settings["clip_norm"] or 0.0,
            mixture=_mixture(artefact),
            loss_weights=_loss_weights(artefact, readme),
        )
    }
    if module is not None:
        files[MODULE] = template(module)
    files[TUNED] = self_contained(artefact)
    return files


def template(name: str) -> str:
    """The text of a file of the folder `templates`."""
    folder = resources.files("metatune.artefact.exporters") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _facts(artefact: Artefact) -> str:
    """What is in tuned.json, a line each."""
    rates, settings = artefact.learning_rates, dict(artefact.optimizer.settings)
    kind = settings.pop("kind")
    chosen = ", ".join(f"{key} {value}" for key, value in settings.items())
    lines = [
        f"- tuned over {artefact.horizon_steps:,} updates, {artefact.horizon_tokens:,} tokens",
        f"- learning rates of {len(rates.parameters):,} parameters at {len(rates.knots):,} knots",
        f"- for the optimizer {kind}: {chosen}",
    ]
    for what, schedule in (("shares", artefact.mixture), ("loss weights", artefact.loss_weights)):
        if schedule is not None:
            names = ", ".join(schedule.columns)
            lines.append(f"- {what} of {names} at {len(schedule.knots):,} knots")
    return "\n".join(lines)


def _clip(artefact: Artefact) -> str:
    """The line of a PyTorch loop that clips as the tuned training did."""
    norm = artefact.optimizer.settings["clip_norm"]
    if norm is None:
        return "# no clipping: the rates were tuned without"
    return f"torch.nn.utils.clip_grad_norm_(model.parameters(), {norm})"


def _loss_weights(artefact: Artefact, readme: str) -> str:
    """How to weigh the loss."""
    schedule = artefact.loss_weights
    if schedule is None:
        return "No loss weights were tuned."
    if not isinstance(schedule, ClassWeights):
        return (
            "`loss_weights` are those of sequences: multiply the loss of each by the weight of its "
            "domain."
        )
    places = ", ".join(f"{place} for {name}" for place, name in enumerate(schedule.classes))
    return Template(template(f"{readme}_classes.md")).substitute(places=places).rstrip()


def _mixture(artefact: Artefact) -> str:
    """What a reader must know of the shares of the domains."""
    if artefact.mixture is None:
        return "No mixture was tuned: sample the domains as the tuned training did."
    starts = ", ".join(f"{knot:g}" for knot in artefact.mixture.knots)
    if artefact.mixture.interpolation == "linear":
        return f"The shares move at every update, on lines between the fractions {starts}."
    return f"The shares change at these fractions of training, and stay in between: {starts}."
