"""Searches and tuned schedules in Python: for notebooks, and for trainers of one's own.

`fit` tunes a recipe, `plan` tells before what that takes, `load` reads what was tuned:

>>> from metatune import api
>>> tuned = api.load(run)  # a run folder, an artefact folder or a tuned.json
>>> tuned.learning_rate("model.norm.weight", step=0, total=1000)
0.001
>>> tuned.mixture(step=999, total=1000)
{'code': 0.75, 'drama': 0.25}
"""

import functools
import html
import importlib
import io
import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from metatune import artefact
from metatune.artefact.demands import destination, fitted_lines
from metatune.artefact.files import TUNED
from metatune.artefact.format import Artefact
from metatune.artefact.writing import portable_files
from metatune.recipe import overrides as changing
from metatune.recipe import reading, schema, shipped, writing
from metatune.recipe.faults import RecipeError
from metatune.report import notebook
from metatune.report.notebook import Picture

if TYPE_CHECKING:
    from metatune.inner import InnerTraining
    from metatune.plan import Plan

__all__ = ["Picture", "Planned", "Tuned", "fit", "load", "plan"]

RecipeLike = str | Path | Mapping[str, Any] | schema.Recipe
"""A file, the name of a shipped recipe, sections as plain values, or a recipe that was read."""

Changes = Sequence[str] | Mapping[str, Any]
"""`KEY.PATH=VALUE` each, as on the command line, or values by dotted path."""

COLUMNS = 100
"""Of tables that are printed."""


def fit(
    recipe: RecipeLike,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    overrides: Changes = (),
) -> "Tuned":
    """Tunes a recipe, as `metatune fit` does.

    An interrupted search (Ctrl-C, or a notebook's stop button) leaves the best so far in `out`,
    where `load` finds it, and goes on bit for bit with `resume=True`.

    As in `tuned = api.fit("quickstart", "runs/mine", overrides={"outer.steps": 10})`; how far it is
    is printed.

    Args:
        recipe: what to tune.
        out: the run folder to write.
        resume: go on with the run in `out`.
        overwrite: replace the run in `out`.
        overrides: changes to the recipe.

    Raises:
        RecipeError: with all faults of the recipe.
        RunFolderError: `out` can't be used as asked.
        KeyboardInterrupt: it was interrupted, and can be resumed.
        NotFinite, EstimatorError, CheckpointError, ReplayError, CommandFailed: as of
            `metatune.fit.outer_loop.fit`.
    """
    from rich.console import Console

    from metatune import plan as plans
    from metatune.fit import outer_loop
    from metatune.fit.process.compilation import keep_compiled
    from metatune.fit.run_folder import usable
    from metatune.plan import mesh

    folder = usable(Path(out), resume=resume, overwrite=overwrite)
    keep_compiled()
    console = Console(force_jupyter=False)  # what it shows there otherwise needs ipywidgets
    training = _prepared(recipe, overrides, console)
    held, before = (folder.devices(), folder.outer()) if resume else (None, None)
    training, chosen = mesh.settled(training, folder=folder.scratch, before=held)
    training, reasons = plans.decided(training, folder=folder.scratch, before=before)
    for why in (*([chosen] if chosen else ()), *(f"estimator {why}" for why in reasons)):
        console.print(why, highlight=False, soft_wrap=True)
    outcome = outer_loop.fit(
        training, Path(out), resume=resume, overwrite=overwrite, console=console
    )
    if outcome.interrupted:
        raise KeyboardInterrupt(
            f"interrupted; the best so far is api.load({str(out)!r}); go on with resume=True"
        )
    return Tuned(outcome.artefact)


def plan(recipe: RecipeLike, *, overrides: Changes = (), out: str | Path = ".") -> "Planned":
    """Tells what a recipe will take, and which estimator to choose, as `metatune plan` does.

    >>> planned = api.plan("quickstart", overrides=changes)
    >>> planned.phases[0].pick.memory.device > 0
    True

    Args:
        recipe: what is to be tuned.
        overrides: changes to the recipe.
        out: the run folder to be, for what is kept on disk.

    Raises:
        RecipeError: with all faults of the recipe.
        EstimatorError: an estimator can't be used for this training.
        NotPredicted: what an external trainer takes can't be known.
    """
    from rich.console import Console

    from metatune import plan as plans
    from metatune.fit.process.compilation import keep_compiled
    from metatune.plan import mesh

    keep_compiled()
    console = Console(stderr=True, force_jupyter=False)
    training, why = mesh.settled(_prepared(recipe, overrides, console), folder=Path(out))
    if why:
        console.print(why, highlight=False, soft_wrap=True)
    return Planned(plans.by_phase(training, folder=Path(out)))


def _prepared(recipe: RecipeLike, changes: Changes, console: Any) -> "InnerTraining":
    from metatune.fit.telling.progress import tokenizing
    from metatune.inner import prepare, prepare_file

    if isinstance(changes, Mapping):
        changes = [f"{path}={json.dumps(value)}" for path, value in changes.items()]
    with tokenizing(console) as listener:
        if isinstance(recipe, str | Path):
            return prepare_file(shipped.find(str(recipe)), changes, listener)
        tree = writing.to_tree(recipe) if isinstance(recipe, schema.Recipe) else recipe
        tree, faults = changing.apply(tree, changes)
        if faults:
            raise RecipeError("recipe", faults)
        return prepare(reading.parse(tree, "recipe"), listener=listener)


def load(path: str | Path) -> "Tuned":
    """Reads tuned schedules.

    Args:
        path: a tuned.json, an artefact folder, or a run folder.

    Raises:
        ArtefactError: nothing is there, it isn't an artefact, or it was changed after it was
            written.
    """
    return Tuned(artefact.load(path))


class Planned:
    """What a recipe will take, by phase of its search."""

    def __init__(self, phases: "Sequence[Plan]"):
        """Holds a plan for each phase."""
        self.phases = tuple(phases)

    @property
    def pick(self) -> str | None:
        """The way that the first phase is best run, by its name; None where nothing fits."""
        chosen = self.phases[0].pick
        return chosen.name if chosen else None

    def as_json(self) -> list[dict[str, Any]]:
        """Bytes and seconds as numbers, for each phase."""
        from metatune.plan import table

        return [table.as_json(phase) for phase in self.phases]

    def __repr__(self) -> str:
        """The tables of `metatune plan`."""
        from rich.console import Console

        from metatune.plan import table

        said = io.StringIO()
        console = Console(file=said, width=COLUMNS, force_jupyter=False)
        for number, phase in enumerate(self.phases, start=1):
            if len(self.phases) > 1:
                console.print(f"phase {number} of {len(self.phases)}")
            console.print(table.table(phase))
        return said.getvalue().rstrip()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


class Tuned:
    """Tuned schedules, for a training of any length.

    Where `total` is not given, it is the length of the training that was tuned, or that they were
    carried to.
    """

    def __init__(self, held: Artefact):
        """Serves the schedules of an artefact, `held`."""
        self.artefact = held

    @property
    def parameters(self) -> tuple[str, ...]:
        """Checkpoint names of the parameters.

        >>> tuned.parameters
        ('model.embed_tokens.weight', 'model.norm.weight')
        """
        return tuple(self.artefact.learning_rates.parameters)

    @property
    def result(self) -> Mapping[str, Any]:
        """What was measured, as in tuned.json.

        >>> tuned.result["status"]
        'complete'
        """
        return self.artefact.result

    @property
    def before(self) -> tuple[float, ...]:
        """Held-out losses at the recipe's own schedules, by seed; none before they are measured.

        >>> tuned.before
        (3.5, 3.25)
        """
        return tuple(self.result.get("before", ()))

    @property
    def after(self) -> tuple[float, ...]:
        """The same of the tuned schedules.

        >>> tuned.after
        (3.25, 3.125)
        """
        return tuple(self.result.get("after", ()))

    @property
    def pairs(self) -> tuple[tuple[float, float], ...]:
        """Before and after of each seed: two trainings of one initialisation and data order.

        >>> tuned.pairs
        ((3.5, 3.25), (3.25, 3.125))
        """
        return tuple(zip(self.before, self.after, strict=True))

    def carried(
        self,
        model: str | Path,
        *,
        rule: str | None = None,
        steps: int | None = None,
        tokens_per_step: int | None = None,
        sequences_per_step: int | None = None,
    ) -> "Tuned":
        """The schedules for a model and a training of other sizes, as `export --against` has them.

        As in `api.load(run).carried("big-model", steps=10_000)`; `asks` says what is left to do.

        Args:
            model: a folder with its config.json.
            rule: `none`, `mup`, `completep` or `complete_d_p`, which it is where something differs.
            steps: updates of the training to come; those of the tuned one by default.
            tokens_per_step: its tokens per update.
            sequences_per_step: its sequences per update.

        Raises:
            ArtefactError: no such rule, or these schedules can't be carried there.
            RecipeError: the folder has no config.json that can be read.
        """
        from metatune.transfer.toward import toward_folder

        found = toward_folder(
            self.artefact,
            Path(model),
            rule,
            steps=steps,
            tokens_per_step=tokens_per_step,
            sequences_per_step=sequences_per_step,
        )
        return Tuned(found.artefact)

    @property
    def asks(self) -> tuple[str, ...]:
        """What was done to carried schedules, and what their trainer must do beyond rates.

        >>> tuned.asks
        ()
        """
        return tuple(fitted_lines(self.artefact))

    def plot(self) -> Picture:
        """The schedules as a picture, which a notebook shows by itself.

        >>> tuned.plot().save(folder / "schedules.svg").name
        'schedules.svg'
        """
        return notebook.picture(self.artefact)

    def __repr__(self) -> str:
        """What was tuned and what it gained."""
        return "\n  ".join(["Tuned schedules:", *notebook.lines(self.artefact)])

    def _repr_html_(self) -> str:
        return notebook.html(self.artefact, self.pairs)

    def learning_rate(self, name: str, step: int, total: int | None = None) -> float | np.ndarray:
        """The rate of parameter `name` at update `step`, from 0.

        Where rates were tuned within parameters, an array that broadcasts against the tensor.

        >>> [tuned.learning_rate("model.norm.weight", step) for step in (0, 5)]
        [0.001, 0.002]

        Raises:
            ArtefactError: no such parameter, a negative step or a total below 1.
        """
        return self.artefact.learning_rate(name, step, self._total(total))

    def mixture(self, step: int, total: int | None = None) -> dict[str, float]:
        """The share of each domain at update `step`, from 0; they sum to one.

        >>> tuned.mixture(0)
        {'code': 0.5, 'drama': 0.5}

        Raises:
            ArtefactError: no mixture was tuned, a negative step or a total below 1.
        """
        return self.artefact.mixture_at(step, self._total(total))

    def loss_weights(self, step: int, total: int | None = None) -> dict[str, float]:
        """The loss weight of each domain at update `step`, from 0; they average one.

        >>> tuned.loss_weights(0)
        {'code': 1.5, 'drama': 0.5}

        Raises:
            ArtefactError: no loss weights were tuned, a negative step or a total below 1.
        """
        return self.artefact.loss_weights_at(step, self._total(total))

    def optax(self, total: int | None = None) -> Any:
        """The optimizer as an Optax gradient transformation, each parameter on its curve.

        >>> params = {name: jnp.ones(2) for name in tuned.parameters}
        >>> state = tuned.optax(1000).init(params)

        Raises:
            ValueError: a total below 1; from its `init`, a parameter without a curve.
        """
        return self._module("optax").optimizer(self._total(total), path=self._file)

    def torch_param_groups(self, model: Any, total: int | None = None) -> list[dict[str, Any]]:
        """Groups of the model's trainable parameters, for an optimizer of PyTorch.

        They carry every number that PyTorch has of the tuned optimizer, but for its clipping:
        `clip_norm`.

        >>> groups = tuned.torch_param_groups(model, 1000)
        >>> [group["lr"] for group in groups]
        [0.004, 0.001]

        Raises:
            ValueError: a trainable parameter has no curve; both sides are listed.
        """
        return self._module("torch").param_groups(model, self._total(total), path=self._file)

    def clip_norm(self, step: int, total: int | None = None) -> float | None:
        """The largest global norm of the gradient at update `step`, from 0; None for no clipping.

        >>> print(tuned.clip_norm(0))
        None

        Raises:
            ArtefactError: a negative step or a total below 1.
        """
        return self.artefact.optimizer_at(step, self._total(total))["clip_norm"]

    def torch_scheduler(self, optimizer: Any, total: int | None = None) -> Any:
        """The scheduler that moves each group of `torch_param_groups` along its curve.

        >>> optimizer = torch.optim.AdamW(tuned.torch_param_groups(model, 10))
        >>> scheduler = tuned.torch_scheduler(optimizer, 10)
        >>> for _ in range(5):
        ...     optimizer.step()
        ...     scheduler.step()
        >>> scheduler.get_last_lr()
        [0.004, 0.002]
        """
        return self._module("torch").Schedule(optimizer, self._total(total), path=self._file)

    def _total(self, total: int | None) -> int:
        if total is not None:
            return total
        to = destination(self.artefact)
        return (to and to.steps) or self.artefact.horizon_steps

    @functools.cached_property
    def _file(self) -> Path:
        """A tuned.json with every number, as the modules of exports read it."""
        folder = tempfile.mkdtemp(prefix="metatune-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for name, content in portable_files(self.artefact).items():
            text = content.encode() if isinstance(content, str) else content
            (Path(folder) / name).write_bytes(text)
        return Path(folder) / TUNED

    @staticmethod
    def _module(target: str) -> ModuleType:
        """The very module that an export to `target` holds."""
        return importlib.import_module(f"metatune.artefact.exporters.templates.{target}_schedules")
