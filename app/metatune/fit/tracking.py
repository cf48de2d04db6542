"""Writes a run's progress to TensorBoard."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from metatune import artefact
from metatune.artefact.sections import SECTIONS
from metatune.fit.making import sections_of
from metatune.fit.run_folder import RunFolder
from metatune.fit.searching.growth import growth_curves, growth_scalars
from metatune.fit.telling import dataset_statistics
from metatune.inner import InnerTraining
from metatune.recipe import writing
from metatune.recipe.measures import sentence
from metatune.report import tensorboard, tracked
from metatune.report.pictures.thumbnails import line_plot
from metatune.report.search import best_point, closing, jump
from metatune.report.sharing import sentences

POINTS = 1000
"""Of the norms of adjoint or tangents over inner steps that are drawn."""

EXACT = 2**53
"""Above, TensorBoard's numbers, which are float64, skip whole ones: they are shown as text."""


class Tracker:
    """The event files of one run."""

    def __init__(self, folder: RunFolder, training: InnerTraining, resumed_at: int):
        """Opens the event files.

        Args:
            folder: the run folder.
            training: what is tuned.
            resumed_at: outer steps done before; later events of an earlier process are dropped.
        """
        self._training = training
        self._writer = tensorboard.EventWriter(
            folder.tensorboard, purge_step=resumed_at if resumed_at else None
        )
        if not resumed_at:
            self._writer.text("recipe", f"```yaml\n{writing.to_yaml(training.recipe)}\n```")
            self._writer.text("data", dataset_statistics.table(training))
            self._writer.text("units", sentence(training.recipe))
            choices = writing.flat(writing.to_tree(training.recipe))
            self._writer.hparams(
                {key: v if _is_scalar(v) else str(v) for key, v in choices.items()},
                metrics=("objective", "held_out", "best_held_out"),
            )
            curves = self._curves(training.initial_eta())
            self._writer.custom_scalars(
                tracked.layout(
                    curves, self._windows(), by_size=training.recipe.outer.robust is not None
                )
            )

    def __enter__(self) -> "Tracker":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Writes out what is pending."""
        self._writer.close()

    def point(self, line: Mapping[str, Any], eta: Mapping[str, Any]) -> None:
        """Writes a point of the search: its metrics, and the schedules there.

        Args:
            line: of the metrics; that of the last point, which no outer step is taken from, has no
                objective, and its seconds are those of a judgement.
            eta: the meta-parameters there.
        """
        scalars = {key: v for key, v in line.items() if isinstance(v, float)}
        if "objective" in line:
            scalars["inner_steps"] = float(line["inner_steps"])
        else:
            del scalars["seconds"]
        scalars["phase"] = float(line["phase"])
        for name in (*tracked.SIZES, "hypergradient_norm", "standard_error", "moved"):
            scalars |= {f"{name}/{key}": value for key, value in line.get(name, {}).items()}
        for key, norms in line.get("window_norm", {}).items():
            for number, norm in enumerate(norms, 1):
                if norm is not None:
                    scalars[f"window_norm/{key}/{number}"] = norm
        for key, shares in line.get("gated", {}).items():
            scalars |= {f"gated/{key}/{name}": share for name, share in shares.items()}
        for name in ("diverged_sides", "lost_directions"):
            if name in line:
                scalars[name] = float(line[name])
        if shared := line.get("sharing"):
            scalars["shared_rates"] = float(shared["blocks"])
            if lines := sentences(shared["changes"]):
                self._writer.text("sharing", "\n".join(f"- {each}" for each in lines), line["step"])
        for key, found in line.get("jumps", {}).items():
            self._writer.text(f"jumps/{key}", jump(line["step"], key, found), line["step"])
        for key, found in line.get("signal", {}).items():
            known = {name: value for name, value in found.items() if value is not None}
            scalars |= {f"signal/{key}/{name}": value for name, value in known.items()}
        if grown := line.get("growth"):
            scalars |= growth_scalars(grown)
            if norms := growth_curves(grown, POINTS):
                of = grown.get("of", "adjoint")
                title = f"Norm of the {of}, point {line['step']}"
                picture = line_plot(norms, title, "norm (log scale)", log=True)
                self._writer.image(f"{of}/norm", picture, line["step"])
        tracked.write_point(
            self._writer,
            step=line["step"],
            scalars=scalars,
            curves=self._curves(eta),
            windows=self._windows(),
        )
        self._writer.flush()

    def finish(self, tuned: artefact.Artefact, eta: Mapping[str, Any]) -> None:
        """Writes the tuned schedules, of meta-parameters `eta`, and how the search ended."""
        last = tuned.result["outer_steps"]
        # TensorBoard keeps the later of two pictures of one step, or shows it after the other.
        where = f"as tuned: {best_point(tuned.result)}"
        tracked.write_pictures(self._writer, last, where, self._curves(eta))
        tracked.write_schedules(self._writer, tuned)
        told = [f"tuned: {best_point(tuned.result)}", *closing(tuned.result)]
        self._writer.text("result", "\n".join(f"- {each}" for each in told), last)
        self._writer.flush()

    def _curves(self, eta: Mapping[str, Any]) -> dict[str, Any]:
        """What every inner step uses of each section that moves over training."""
        steps = self._training.recipe.inner.steps
        moving = [key for key, section in SECTIONS.items() if section.plotted]
        found = sections_of(self._training, eta, moving)
        return {
            key: SECTIONS[key].curves(value, range(steps), steps)
            for key, value in found.items()
            if value is not None
        }

    def _windows(self) -> dict[str, dict[str, int]]:
        """Windows by section, then by tunable."""
        found: dict[str, dict[str, int]] = {}
        windows = {tunable.key: tunable.windows for tunable in self._training.tunables}
        for key, path, _ in self._training.recipe.tune.entries():
            found.setdefault(path.split(".")[1], {})[key] = windows[key]
        return found


def _is_scalar(value: Any) -> bool:
    """Whether TensorBoard can show a setting as it is."""
    return isinstance(value, bool | float | str) or (isinstance(value, int) and abs(value) <= EXACT)
