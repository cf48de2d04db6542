"""Tuned schedules in Python: what they say of a parameter and a step, and optimizers made of them.

>>> from metatune import api
>>> tuned = api.load(run)  # a run folder, an artefact folder or a tuned.json
>>> tuned.learning_rate("model.norm.weight", step=0, total=1000)
0.001
>>> tuned.mixture(step=999, total=1000)
{'code': 0.75, 'drama': 0.25}
"""

import functools
import importlib
import shutil
import tempfile
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from metatune import artefact
from metatune.artefact.format import TUNED, Artefact
from metatune.artefact.writing import portable_files

__all__ = ["Tuned", "load"]


def load(path: str | Path) -> "Tuned":
    """Reads tuned schedules.

    Args:
        path: a tuned.json, an artefact folder, or a run folder.

    Raises:
        ArtefactError: nothing is there, it isn't an artefact, or it was changed after it was
            written.
    """
    return Tuned(artefact.load(path))


class Tuned:
    """Tuned schedules, for a training of any length.

    Where `total` is not given, it is the length of the training that was tuned.
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

        >>> groups = tuned.torch_param_groups(model, 1000)
        >>> [group["lr"] for group in groups]
        [0.004, 0.001]

        Raises:
            ValueError: a trainable parameter has no curve; both sides are listed.
        """
        return self._module("torch").param_groups(model, self._total(total), path=self._file)

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
        return self.artefact.horizon_steps if total is None else total

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
