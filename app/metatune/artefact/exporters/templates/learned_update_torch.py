"""The tuned networks that correct an optimizer's steps, for PyTorch.

`metatune_schedules.Schedule` puts them in. For a scheduler of your own:

    from metatune_learned_update import LearnedUpdate

    learned = LearnedUpdate(optimizer, lambda: step / total_steps)

corrects every `optimizer.step()`; the function says what fraction of training is done. Each
parameter has a group of its own, whose `curve` is its name in the checkpoint, as of
`metatune_schedules.param_groups`. The weights of the networks are in the tuned.safetensors beside
tuned.json.

Source: Metz et al., 2022, arXiv 2203.11860, whose small network and features these are.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

TUNED = Path(__file__).with_name("tuned.json")

TINY = 1e-30  # added to mean squares, for tensors of zeros

MOMENTA, SECOND_MOMENT = "learned_update_momenta", "learned_update_second_moment"
"""In the optimizer's state of a parameter, so that a checkpoint of it resumes exactly."""


class LearnedUpdate:
    """Turns θ' = θ - r d into θ' = θ - r m d, m being what a network makes of each element.

    AdamW and SGD are given θ = 0, which leaves -r d, free of the rounding of a difference; their
    weight decay, which is a part of d, is added here. What clips gradients comes before the step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        progress: Callable[[], float],
        *,
        path: Path = TUNED,
    ):
        """Corrects the steps of `optimizer`, AdamW or SGD, from now on.

        Raises:
            ValueError: another optimizer, or no learned update was tuned.
        """
        if not isinstance(optimizer, torch.optim.AdamW | torch.optim.SGD):
            kind = type(optimizer).__name__
            raise ValueError(f"optimizer {kind}: must be AdamW or SGD for a learned update")
        self._form = json.loads(path.read_text(encoding="utf-8")).get("learned_update")
        if self._form is None:
            raise ValueError(f"{path}: holds no learned update; tune it (`tune: learned_update`)")
        held = load_file(path.with_name("tuned.safetensors"))
        weights = [held[f"learned_update.{name}"] for name in ("hidden", "bias", "output")]
        self._networks = {
            name: tuple(each[group] for each in weights)
            for group, names in enumerate(self._form["groups"].values())
            for name in names
        }
        self._progress = progress
        self._before: dict[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] = {}
        optimizer.register_step_pre_hook(self.before)
        optimizer.register_step_post_hook(self.after)

    @torch.no_grad()
    def before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Puts zeros in the place of the parameters that are about to move."""
        if kwargs.get("closure") or any(closure is not None for closure in args[1:]):
            raise ValueError("a closure would see no parameters: compute the gradients before")
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                self._before[parameter] = parameter.clone(), parameter.grad.clone()
                if isinstance(optimizer, torch.optim.SGD):
                    parameter.grad.add_(parameter, alpha=group["weight_decay"])
                parameter.zero_()

    @torch.no_grad()
    def after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Puts them back, and moves them."""
        progress = self._progress()
        for group in optimizer.param_groups:
            rate = float(group["lr"])
            decay = group["weight_decay"] if isinstance(optimizer, torch.optim.AdamW) else 0.0
            network = self._networks.get(group["curve"])
            for parameter in group["params"]:
                if parameter not in self._before:
                    continue
                start, gradient = self._before.pop(parameter)
                momenta, second = self._moments(optimizer.state[parameter], gradient)
                if not rate:
                    parameter.copy_(start)
                    continue
                direction = decay * start - parameter / rate
                if network is not None:
                    seen = (gradient, start, second, *momenta)
                    direction = _tensor(self._form, network, progress, direction, *seen)
                parameter.copy_(start - rate * direction)

    def _moments(
        self, state: dict[str, Any], gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The decaying means of gradients, [decays, ...], and of their squares, with this one."""
        decays = gradient.new_tensor(self._form["decays"]).reshape(-1, *(1,) * gradient.ndim)
        if MOMENTA not in state:
            state[MOMENTA] = gradient.new_zeros(len(decays), *gradient.shape)
            state[SECOND_MOMENT] = torch.zeros_like(gradient)
        state[MOMENTA] = decays * state[MOMENTA] + (1 - decays) * gradient
        decay = self._form["second_moment_decay"]
        state[SECOND_MOMENT] = decay * state[SECOND_MOMENT] + (1 - decay) * gradient**2
        return state[MOMENTA], state[SECOND_MOMENT]


def _tensor(
    form: Mapping[str, Any],
    network: tuple[torch.Tensor, ...],
    progress: float,
    direction: torch.Tensor,
    gradient: torch.Tensor,
    parameter: torch.Tensor,
    second_moment: torch.Tensor,
    *momenta: torch.Tensor,
) -> torch.Tensor:
    hidden_weights, bias, output_weights = (each.to(direction) for each in network)
    own = _normalised(direction)
    seen = [_normalised(signed) * own for signed in (gradient, *momenta, parameter)]
    seen += [own * own, second_moment / (second_moment.mean() + TINY)]
    features = torch.stack([a * torch.rsqrt(1 + a * a) for a in seen], dim=-1)
    times = torch.tanh(progress / direction.new_tensor(form["time_scales"]) - 1)
    at_all = bias + times @ hidden_weights[len(seen) :]
    hidden = torch.tanh(features @ hidden_weights[: len(seen)] + at_all)
    most = math.log(form["max_multiplier"])
    moved = direction * torch.exp(most * torch.tanh(hidden @ output_weights / most))
    if form["step_size"] == "learned":
        return moved
    return moved * torch.sqrt(_mean_square(direction) / _mean_square(moved))


def _normalised(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(_mean_square(x))


def _mean_square(x: torch.Tensor) -> torch.Tensor:
    return (x * x).mean() + TINY
