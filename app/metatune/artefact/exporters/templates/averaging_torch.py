"""The tuned average of the parameters, for PyTorch and for the Trainer of transformers.

    from torch.optim.swa_utils import AveragedModel
    from metatune_averaging import tuned_average

    average = AveragedModel(model, multi_avg_fn=tuned_average(total_steps))
    for batch in batches:
        ...
        tuned.step()
        average.update_parameters(model)  # after every update
    # evaluate and keep average.module

`Trainer(..., callbacks=[trainer_callback(total_steps)])` does so, and leaves the average in the
model when the training ends.
"""

import bisect
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

TUNED = Path(__file__).with_name("tuned.json")

STEP_TOLERANCE = 1e-6  # of a step: a knot k/T times a total T may miss k by rounding


def decay(step: int, total_steps: int, *, path: Path = TUNED) -> float:
    """How much of the average stays after update `step`, 0 for the first.

    Raises:
        ValueError: a negative step, or a total below 1.
    """
    if step < 0 or total_steps < 1:
        raise ValueError(f"step {step} of {total_steps}: steps count from 0, totals from 1")
    schedule = _read(path)["averaging"]
    knots, values = schedule["knots"], schedule["decay"]
    before = bisect.bisect_right(knots, (step + STEP_TOLERANCE) / total_steps) - 1
    if schedule["interpolation"] == "constant" or before == len(knots) - 1:
        return values[before]
    span = knots[before + 1] - knots[before]
    along = max(0.0, step / total_steps - knots[before]) / span
    return (1 - along) * values[before] + along * values[before + 1]


def tuned_average(total_steps: int, *, path: Path = TUNED) -> Callable[..., None]:
    """The `multi_avg_fn` of an `AveragedModel`, which is updated after every update.

    Args:
        total_steps: updates of the training.
        path: the tuned.json.
    """

    @torch.no_grad()
    def multi_avg_fn(averages: Sequence[Any], params: Sequence[Any], updates: Any) -> None:
        kept = decay(int(updates), total_steps, path=path)
        for average, param in zip(averages, params, strict=True):
            average.mul_(kept).add_(param, alpha=1 - kept)

    return multi_avg_fn


def trainer_callback(total_steps: int, *, path: Path = TUNED) -> Any:
    """A callback of `transformers.Trainer`; the model is the average when training ends.

    Held-out losses on the way are those of the model that is trained.

    Args:
        total_steps: updates of the training.
        path: the tuned.json.
    """
    from transformers import TrainerCallback

    class TunedAverage(TrainerCallback):
        average: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step:
                raise ValueError("the average isn't in a checkpoint: train from the first update")
            update = tuned_average(total_steps, path=path)
            self.average = AveragedModel(given["model"], multi_avg_fn=update)

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.average.update_parameters(given["model"])

        @torch.no_grad()
        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            averages = self.average.module.parameters()
            for param, average in zip(given["model"].parameters(), averages, strict=True):
                param.copy_(average)

    return TunedAverage()


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
