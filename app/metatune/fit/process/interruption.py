"""An interrupted search: what is kept of it, and the command that goes on.

Whatever ends a search from outside comes here: Ctrl-C, or a signal that is made the same of.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metatune import artefact
from metatune.fit.run_folder import RunFolder
from metatune.report.search import best_point


@dataclass
class Whereabouts:
    """Where a `metatune fit` is, to be told of if it is interrupted.

    Attributes:
        recipe: as it was named on the command line.
        overrides: given there.
        out: the run folder.
        resume: whether it was to go on with the run in there.
        overwrite: whether it was to delete that first.
        doing: what it is doing; kept up to date by the caller.
    """

    recipe: str
    overrides: Sequence[str]
    out: Path
    resume: bool
    overwrite: bool
    doing: str = "reading the data"
    _before: tuple[int, int] | None = field(init=False)

    def __post_init__(self) -> None:
        """Looks whether there is a run already."""
        self._before = _identity(self.out)

    def told(self) -> str:
        """What it was doing, what is kept, and how to go on; in that order."""
        where = f" ({self.doing})" if self.doing else ""
        return f"interrupted{where}: {self._kept()}"

    def _kept(self) -> str:
        folder = RunFolder(self.out)
        begun = self.resume or _identity(self.out) not in (None, self._before)
        if not begun:
            option = ["--overwrite"] if self.overwrite else []
            return f"nothing is begun yet; begin again with\n  {self._command(*option)}"
        done = _steps_kept(folder)
        steps = f"{done} outer step{'s' if done != 1 else ''}"
        go_on = f"go on with\n  {self._command('--resume')}"
        if not (folder.artefact / "tuned.json").exists():
            return f"{steps} kept in {self.out}; {go_on}"
        result = artefact.load(folder.artefact).result
        if result.get("status") == "complete":
            show = shlex.join(["metatune", "show", str(self.out)])
            return f"the run is complete all the same; see it with\n  {show}"
        point = best_point(result)
        if result.get("best_outer_step", -1) >= 0:
            point = f"the best so far, {point}"
        best = f"{point}, in {folder.artefact}"
        lines = folder.read_metrics()
        if lines and "objective" not in lines[-1]:
            verb = "is" if steps.startswith("1 ") else "are"
            return (
                f"the search is over, its {steps} {verb} kept, and {best}, but its result isn't "
                f"measured; {go_on}"
            )
        return f"{steps} kept in {self.out}, and {best}; {go_on}"

    def _command(self, *options: str) -> str:
        said = ["metatune", "fit", self.recipe, *self.overrides, "--out", str(self.out), *options]
        return shlex.join(said)


def _identity(out: Path) -> tuple[int, int] | None:
    """Tells one run in a folder from another; None where there is none."""
    recipe = RunFolder(out).recipe
    if not recipe.exists():
        return None
    found = recipe.stat()
    return found.st_ino, found.st_mtime_ns


def _steps_kept(folder: RunFolder) -> int:
    """Outer steps of the newest checkpoint; one that is half-written has another name."""
    if not folder.checkpoints.exists():
        return 0
    names = [path.name for path in folder.checkpoints.iterdir()]
    return max((int(name) for name in names if name.isdigit()), default=0)
