"""Writes a run's progress to TensorBoard."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from metatune import artefact
from metatune.artefact.elements import quantile_curves
from metatune.fit import holdings
from metatune.fit.result import element_factors
from metatune.fit.run_folder import RunFolder
from metatune.inner import InnerTraining
from metatune.recipe import writing
from metatune.recipe.measures import sentence
from metatune.report import tensorboard
from metatune.report.sharing import sentences
from metatune.tunables import Groups, LearningRates

SCALAR = (bool, int, float, str)
LAYOUT = {
    "search": {
        "loss": ["objective", "held_out", "best_held_out"],
        "hypergradient": ["hypergradient_norm/.*", "standard_error/.*"],
        "signal to noise": ["signal/.*/median"],
    },
    "schedules": {
        "learning rates": ["schedule/learning_rate/.*"],
        "mixture": ["schedule/mixture/.*"],
    },
}
"""Charts of TensorBoard's custom-scalars page, with the tags that each shows."""


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
            self._writer.text("data", holdings.table(training))
            self._writer.text("units", sentence(training.recipe.outer, training.recipe.data))
            choices = writing.flat(writing.to_tree(training.recipe))
            self._writer.hparams(
                {key: v if isinstance(v, SCALAR) else str(v) for key, v in choices.items()},
                metrics=("objective", "held_out", "best_held_out"),
            )
            self._writer.custom_scalars(LAYOUT)

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

    def outer_step(self, line: Mapping[str, Any], eta: Mapping[str, Any]) -> None:
        """Writes one outer step: its metrics, and the schedules that it was run with."""
        scalars = {key: v for key, v in line.items() if isinstance(v, float)}
        scalars |= {key: float(line[key]) for key in ("phase", "inner_steps")}
        norms = line["hypergradient_norm"]
        scalars |= {f"hypergradient_norm/{key}": norm for key, norm in norms.items()}
        if shared := line.get("sharing"):
            scalars["shared_rates"] = float(shared["blocks"])
            if lines := sentences(shared["changes"]):
                self._writer.text("sharing", "\n".join(f"- {each}" for each in lines), line["step"])
        errors = line.get("standard_error", {})
        scalars |= {f"standard_error/{key}": error for key, error in errors.items()}
        for key, found in line.get("signal", {}).items():
            known = {name: value for name, value in found.items() if value is not None}
            scalars |= {f"signal/{key}/{name}": value for name, value in known.items()}
        tensorboard.write_outer_step(
            self._writer,
            step=line["step"],
            scalars=scalars,
            windows={tunable.key: tunable.windows for tunable in self._training.tunables},
            **self._schedules(eta),
        )
        self._writer.flush()

    def finish(self, tuned: artefact.Artefact) -> None:
        """Writes the tuned schedules and the result."""
        tensorboard.write_schedules(self._writer, tuned)

    def _schedules(self, eta: Mapping[str, Any]) -> dict[str, Any]:
        trajectory = self._training.trajectory(eta)
        rates = {t.key: t for t in self._training.tunables}.get("learning_rates")
        if (factors := element_factors(rates, eta)) is not None:
            curves = quantile_curves(trajectory.learning_rates, factors)
        elif isinstance(rates, LearningRates) and isinstance(rates.cells, Groups):
            members = rates.cells.members.items()
            curves = {label: trajectory.learning_rates[names[0]] for label, names in members}
        else:
            curves = dict(trajectory.learning_rates)
        shares = dict(zip(self._training.corpus.names, trajectory.mixture.T, strict=True))
        return {"rates": curves, "shares": shares}
