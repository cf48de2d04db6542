"""The losses of a ladder, as they are measured: a line each, so that a killed climb goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from metatune.ladder.candidates import Candidate
from metatune.runs.files import append_line, mend, whole_lines
from metatune.transfer.rung import Rung

FILE: Final = "transfer.jsonl"


class LadderRecord:
    """The losses of a run's ladder under a rule; others beside them stay as they are.

    A line has `rule`, `rung`, and either `candidate`, `seed` and `loss` (null where the training
    diverged), or a `prediction` with the time at which it was made; or `at`, a prediction for a
    model that was named.
    """

    def __init__(self, run: Path, identity: Mapping[str, Any]):
        """Reads what is known.

        Args:
            run: the run folder.
            identity: what the numbers depend on besides rung, candidate and seed.
        """
        self._file, self._identity = run / FILE, dict(identity)
        lines = whole_lines(self._file, "delete the line: what it says is measured again")
        self._lines = [line for line in lines if line.get("of") == self._identity]

    def mend(self) -> None:
        """Takes away a last line that was cut off; only who holds the run may."""
        mend(self._file)

    def losses(self, rung: Rung) -> dict[str, dict[int, float]]:
        """Of each candidate by its name, then by seed."""
        found: dict[str, dict[int, float]] = {}
        for line in self._lines:
            if "candidate" in line and line["rung"] == rung.key:
                loss = float("inf") if line["loss"] is None else line["loss"]
                found.setdefault(line["candidate"], {})[line["seed"]] = loss
        return found

    def loss(self, rung: Rung, candidate: Candidate, seed: int) -> float | None:
        """A loss; None where it isn't known."""
        return self.losses(rung).get(candidate.name, {}).get(seed)

    def add(self, rung: Rung, candidate: Candidate, seed: int, loss: float) -> None:
        """Keeps a loss."""
        finite = loss if loss != float("inf") else None
        self._append({"rung": rung.key, "candidate": candidate.name, "seed": seed, "loss": finite})

    def predictions(self) -> dict[str, dict[str, Any]]:
        """By rung, the first that was made of each."""
        found: dict[str, dict[str, Any]] = {}
        for line in self._lines:
            if "prediction" in line:
                found.setdefault(line["rung"], line["prediction"])
        return found

    def named(self) -> list[dict[str, Any]]:
        """Predictions for models that were named, the latest of each with its number of steps."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for line in self._lines:
            if "at" in line:
                found[line["at"]["at"], line["at"]["steps"]] = line["at"]
        return list(found.values())

    def name(self, prediction: Mapping[str, Any]) -> None:
        """Keeps a prediction for a model that was named."""
        self._append({"at": dict(prediction)})

    def predict(self, rung: str, prediction: Mapping[str, Any]) -> None:
        """Keeps a prediction, before anything of its rung is trained."""
        self._append({"rung": rung, "prediction": dict(prediction)})

    def complete(self, rung: Rung, seeds: Sequence[int]) -> dict[str, list[float]]:
        """The losses over the same seeds of all candidates of which all are known."""
        return {
            name: [by_seed[seed] for seed in seeds]
            for name, by_seed in self.losses(rung).items()
            if all(seed in by_seed for seed in seeds)
        }

    def _append(self, line: dict[str, Any]) -> None:
        whole = {"of": self._identity, **line}
        append_line(self._file, whole)
        self._lines.append(whole)
