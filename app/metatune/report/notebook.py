"""Results as a notebook shows them, and as Python prints them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from metatune.artefact import Artefact
from metatune.recipe.faults import Fault, RecipeError
from metatune.report.artefact_readme import horizon, verdict, what_is_tuned


@dataclass(frozen=True)
class Picture:
    """A picture that a notebook shows by itself.

    Attributes:
        svg: the whole document, text.
    """

    svg: str = field(repr=False)

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> Path:
        """Writes the picture, and returns where it is.

        Raises:
            RecipeError: the name doesn't end in .svg.
            OSError: it can't be written there.
        """
        file = Path(path)
        if file.suffix != ".svg":
            fault = Fault("path", str(path), "must end in .svg", "the picture is drawn as SVG")
            raise RecipeError("save", [fault])
        file.write_text(self.svg, encoding="utf-8")
        return file


def lines(artefact: Artefact) -> list[str]:
    """What was tuned and what it gained, in short lines."""
    result = artefact.result
    said = [verdict(result, decided=artefact.verdict is not None)] if "status" in result else []
    if result.get("status") == "complete":
        said.append(
            f"default {result['objective_before']:.4f}, tuned {result['objective_after']:.4f} "
            f"{result['unit']}, held out, {len(result['held_out_seeds'])} paired trainings"
        )
    return [*said, *what_is_tuned(artefact), f"horizon: {horizon(artefact)}"]


def html(artefact: Artefact, pairs: Sequence[tuple[float, float]]) -> str:
    """The same with the pairs that were measured, and the schedules drawn.

    Args:
        artefact: the tuned schedules.
        pairs: held-out losses of the default and of the tuned schedules, by seed.
    """
    first, *rest = lines(artefact)
    parts = [f"<p><b>{escape(first)}</b></p>", *(f"<p>{escape(line)}</p>" for line in rest)]
    if pairs:
        heads = "".join(f"<th>{head}</th>" for head in ("", "default", "tuned", "difference"))
        rows = "".join(
            f"<tr><td>{number}</td><td>{before:.4f}</td><td>{after:.4f}</td>"
            f"<td>{after - before:+.4f}</td></tr>"
            for number, (before, after) in enumerate(pairs, start=1)
        )
        parts.append(f"<table><tr>{heads}</tr>{rows}</table>")
    return "".join([*parts, picture(artefact).svg])


def picture(artefact: Artefact, title: str = "Tuned schedules") -> Picture:
    """The tuned schedules beside those that the search began with."""
    # Here, as reading schedules needs no matplotlib.
    from metatune.report.pictures.schedules import schedule_svg

    return Picture(schedule_svg(artefact, title))
