"""The tuned schedules of the tuned.json beside this file, for PyTorch.

    from metatune_schedules import Schedule, optimizer

    tuned = optimizer(model, total_steps)
    schedule = Schedule(tuned, total_steps)
    for batch in batches:
        loss(model, batch).backward()
        tuned.step()
        schedule.step()
        tuned.zero_grad()

Step 0 is the first update. Schedules are written over fractions of training: `total_steps` is the
number of updates of your training, however long.
"""

import bisect
import difflib
import functools
import itertools
import json
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import IterableDataset, get_worker_info

TUNED = Path(__file__).with_name("tuned.json")

STEP_TOLERANCE = 1e-6  # of a step: a knot k/T times a total T may miss k by rounding


def param_groups(
    model: torch.nn.Module,
    total_steps: int,
    *,
    path: Path = TUNED,
    checkpoint_name: Callable[[str], str] = str,
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters, for `torch.optim.AdamW` or `torch.optim.SGD`.

    Parameters with the same curve and the same weight decay share a group. `curve` in a group is
    the name of its first parameter: by it `Schedule` finds the curve, and what else was tuned.
    Where rates were tuned within parameters, or a learned update was, each has a group of its own,
    and `Schedule` scales what the optimizer does to it.

    Args:
        model: names of `named_parameters()` are those of its Hugging Face checkpoint.
        total_steps: updates of the training.
        path: the tuned.json.
        checkpoint_name: gives the name in tuned.json of a parameter named otherwise in `model`.

    Raises:
        ValueError: a trainable parameter has no curve.
    """
    tuned = _read(path)
    curves, settings = tuned["learning_rates"]["parameters"], tuned["optimizer"]
    named = [(checkpoint_name(n), p) for n, p in model.named_parameters() if p.requires_grad]
    _check_names([name for name, _ in named], curves, path)
    decayed = set(settings["decayed"])
    tuned_decay = (settings.get("schedules") or {}).get("weight_decay") or {}
    groups: dict[Any, dict[str, Any]] = {}
    for name, parameter in named:
        decay = settings["weight_decay"] if name in decayed else 0.0
        new = {"params": [], "weight_decay": decay, "curve": name}
        apart = "elements" in tuned["learning_rates"] or "learned_update" in tuned
        own = name if apart else None
        alike = (tuple(curves[name]), decay, tuple(tuned_decay.get(name, ())), own)
        group = groups.setdefault(alike, new)
        group["params"].append(parameter)
    for group in groups.values():
        group["lr"] = _rate(tuned["learning_rates"], group["curve"], 0, total_steps)
        group |= _numbers(settings, group["curve"], 0, total_steps)
    return list(groups.values())


def optimizer(
    model: torch.nn.Module,
    total_steps: int,
    *,
    path: Path = TUNED,
    checkpoint_name: Callable[[str], str] = str,
) -> torch.optim.Optimizer:
    """The optimizer that the rates were tuned for, with the groups of `param_groups`.

    It doesn't clip: call `torch.nn.utils.clip_grad_norm_` before each step, as README.md says.

    Raises:
        ValueError: a trainable parameter has no curve.
    """
    groups = param_groups(model, total_steps, path=path, checkpoint_name=checkpoint_name)
    settings = _read(path)["optimizer"]
    if settings["kind"] not in ("adamw", "sgd"):
        raise ValueError(f"{path}: holds rates of {settings['kind']}, not of adamw or sgd")
    if settings["kind"] == "adamw":
        betas = (settings["b1"], settings["b2"])
        return torch.optim.AdamW(groups, betas=betas, eps=settings["eps"])
    momentum = settings["momentum"]
    # Without momentum there is nothing to look ahead along, and PyTorch refuses the pair.
    nesterov = settings["nesterov"] and momentum > 0
    return torch.optim.SGD(groups, momentum=momentum, nesterov=nesterov)


class Schedule(LRScheduler):
    """Sets the rate of every group of `param_groups` to its curve at each update.

    Where rates were tuned within parameters, it also scales each update, element by element, by
    the factors in the tuned.safetensors beside `path`. The optimizer is AdamW or SGD then. So it
    is where a learned update was tuned, which corrects each update.

    The curves are not part of the state: a checkpoint resumes with the tuned.json that is there,
    not with the one of then. Load the optimizer's state first, then this one's.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        *,
        path: Path = TUNED,
    ):
        """Schedules `optimizer`, made of `param_groups`, over `total_steps` updates."""
        tuned = _read(path)
        rates, settings = tuned["learning_rates"], tuned["optimizer"]
        names = [group["curve"] for group in optimizer.param_groups]
        self._rates = lambda step: [_rate(rates, name, step, total_steps) for name in names]
        self._numbers = lambda step: [_numbers(settings, name, step, total_steps) for name in names]
        super().__init__(optimizer)
        if "elements" in rates:
            scaling = _ElementScaling(self, rates["elements"], total_steps, path)
            optimizer.register_step_pre_hook(scaling.before)
            optimizer.register_step_post_hook(scaling.after)
        if "learned_update" in tuned:
            _correct(optimizer, lambda: self.last_epoch / total_steps, path)

    def get_lr(self) -> list[Any]:
        """The rate of each group at update `last_epoch`."""
        return self._rates(self.last_epoch)

    def step(self, epoch: int | None = None) -> None:
        """Sets the rates of the next update, and what else was tuned of the optimizer."""
        super().step(epoch)
        self._set_numbers()

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands, without the curves."""
        curves = ("_rates", "_numbers")
        return {key: value for key, value in super().state_dict().items() if key not in curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from where `state_dict` stood, with the rates of that update."""
        super().load_state_dict(state_dict)
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
        self._set_numbers()

    def _set_numbers(self) -> None:
        numbers = self._numbers(self.last_epoch)
        for group, own in zip(self.optimizer.param_groups, numbers, strict=True):
            group.update(own)


def _correct(optimizer: torch.optim.Optimizer, progress: Callable[[], float], path: Path) -> None:
    """Corrects every step by the learned update."""
    # In an export of one alone.
    from metatune_learned_update import LearnedUpdate  # pyright: ignore[reportMissingImports]

    LearnedUpdate(optimizer, progress, path=path)


class _ElementScaling:
    """Turns θ' = θ - r d into θ' = θ - r f d, with factors f for each element, row or column.

    AdamW and SGD are given θ = 0, which leaves -r d, free of the rounding of a difference; their
    weight decay, which is a part of d, is added here.
    """

    def __init__(
        self, schedule: "Schedule", elements: Mapping[str, Any], total_steps: int, path: Path
    ):
        from safetensors.torch import load_file  # needed for rates within parameters alone

        held = load_file(path.with_name("tuned.safetensors"))
        self._schedule, self._elements, self._total_steps = schedule, elements, total_steps
        self._factors: dict[torch.Tensor, torch.Tensor] = {}
        self._before: dict[torch.Tensor, torch.Tensor] = {}
        if not isinstance(schedule.optimizer, torch.optim.AdamW | torch.optim.SGD):
            kind = type(schedule.optimizer).__name__
            raise ValueError(f"optimizer {kind}: must be AdamW or SGD for rates within parameters")
        for group in schedule.optimizer.param_groups:
            for parameter in group["params"]:
                factors = held[group["curve"]]
                block, shape = factors.shape[1:], parameter.shape
                if len(block) != len(shape) or any(
                    size not in (1, own) for size, own in zip(block, shape, strict=True)
                ):
                    raise ValueError(
                        f"{group['curve']}: factors {list(block)} in {path}, but the "
                        f"parameter is {list(shape)}; it must be whole, not sharded"
                    )
                wide = torch.promote_types(parameter.dtype, torch.float32)
                self._factors[parameter] = factors.to(parameter.device, wide)

    @torch.no_grad()
    def before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Puts zeros in the place of the parameters that are about to move."""
        if kwargs.get("closure") or any(closure is not None for closure in args[1:]):
            raise ValueError("a closure would see no parameters: compute the gradients before")
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if isinstance(optimizer, torch.optim.SGD):
                    parameter.grad.add_(parameter, alpha=group["weight_decay"])
                self._before[parameter] = parameter.clone()
                parameter.zero_()

    @torch.no_grad()
    def after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Puts them back, and moves them."""
        step = self._schedule.last_epoch
        before, along = _position(self._elements, step, self._total_steps)
        for group in optimizer.param_groups:
            decay = group["weight_decay"] if isinstance(optimizer, torch.optim.AdamW) else 0.0
            for parameter in group["params"]:
                if parameter not in self._before:
                    continue
                factors = _between(self._factors[parameter], before, along)
                start = self._before.pop(parameter)
                moved = parameter - group["lr"] * decay * start
                parameter.copy_(start + factors * moved)


def trainer_arguments(
    model: torch.nn.Module,
    total_steps: int,
    *,
    path: Path = TUNED,
    checkpoint_name: Callable[[str], str] = str,
) -> dict[str, tuple[torch.optim.Optimizer, Schedule]]:
    """Arguments for `transformers.Trainer(..., **trainer_arguments(model, total_steps))`.

    Raises:
        ValueError: a trainable parameter has no curve.
    """
    tuned = optimizer(model, total_steps, path=path, checkpoint_name=checkpoint_name)
    return {"optimizers": (tuned, Schedule(tuned, total_steps, path=path))}


def clip_norm(step: int, total_steps: int, *, path: Path = TUNED) -> float | None:
    """The largest global norm of the gradient at update `step`; None for no clipping."""
    settings = _read(path)["optimizer"]
    return _settings(settings, step, total_steps).get("clip_norm", settings["clip_norm"])


def mixture(step: int, total_steps: int, *, path: Path = TUNED) -> dict[str, float]:
    """The share of each domain in the sequences of update `step`; they sum to one.

    Raises:
        ValueError: no mixture was tuned.
    """
    shares = _columns("mixture", step, total_steps, path)
    whole = sum(shares.values())
    return {domain: share / whole for domain, share in shares.items()}


def loss_weights(step: int, total_steps: int, *, path: Path = TUNED) -> dict[str, float]:
    """The weight of the loss of each domain's sequences, or each class's tokens, at update `step`.

    Those of domains average one, those of classes average one over the training tokens.

    Raises:
        ValueError: no loss weights were tuned.
    """
    return _columns("loss_weights", step, total_steps, path)


def token_classes(tokens: torch.Tensor, *, path: Path = TUNED) -> torch.Tensor:
    """The place of each token's class in `loss_weights(...)`, where position or vocabulary says it.

    Args:
        tokens: ids [batch, sequence], each sequence from its first token on.
        path: the tuned.json.

    Returns:
        Integers [batch, sequence].

    Raises:
        ValueError: no such weights were tuned, or not for sequences as long.
    """
    weights = _read(path)["loss_weights"] or {}
    if "vocabulary" in weights:
        return torch.tensor(weights["vocabulary"], device=tokens.device)[tokens]
    if "positions" not in weights:
        raise ValueError(f"{path}: holds no loss weights by position or frequency of tokens")
    length, starts = weights["positions"]["sequence_length"], weights["positions"]["starts"]
    if tokens.shape[-1] > length:
        raise ValueError(f"{tokens.shape[-1]} tokens: weights were tuned for up to {length}")
    places = torch.arange(tokens.shape[-1], device=tokens.device)
    edges = torch.tensor(starts[1:], device=tokens.device)
    return torch.bucketize(places, edges, right=True).expand(tokens.shape)


def loss_terms(step: int, total_steps: int, *, path: Path = TUNED) -> dict[str, float]:
    """What the loss has at update `step` beside the next token's term: coefficients by name."""
    terms = _read(path).get("loss_terms")
    if terms is None:
        return {}
    before, along = _position(terms, step, total_steps)
    return {name: _between(curve, before, along) for name, curve in terms["values"].items()}


def token_losses(
    logits: torch.Tensor,
    targets: torch.Tensor,
    step: int,
    total_steps: int,
    *,
    path: Path = TUNED,
) -> torch.Tensor:
    """The loss of each token at update `step`, with the terms of `loss_terms`.

    Args:
        logits: [..., vocabulary].
        targets: [...]; the loss of a target of -100 is 0.
        step: 0 is the first update.
        total_steps: updates of the training.
        path: the tuned.json.

    Returns:
        [...].
    """
    terms = loss_terms(step, total_steps, path=path)
    logits, targets = logits.float(), targets.to(logits.device)
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, -2),
        targets.flatten(),
        reduction="none",
        label_smoothing=terms.get("label_smoothing", 0.0),
    ).view(targets.shape)
    if "z_loss" in terms:
        counts = (targets != -100).to(logits.dtype)
        losses = losses + terms["z_loss"] * counts * logits.logsumexp(-1) ** 2
    return losses


def weighted_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    classes: torch.Tensor,
    step: int,
    total_steps: int,
    *,
    tokens: torch.Tensor | float | None = None,
    path: Path = TUNED,
) -> torch.Tensor:
    """The loss at update `step`, its tokens weighted by their classes, with its `loss_terms`.

    `Σ w l / n` over the n tokens of the batch that are predicted. The gradients of an update that
    takes several batches add up to that of all of them where each is given all their tokens.

    Args:
        logits: [batch, sequence, vocabulary]; token t is predicted from the logits before it.
        labels: the tokens, [batch, sequence]; those of -100 aren't predicted.
        classes: place of each token's class in `loss_weights(...)`, integers [batch, sequence].
        step: 0 is the first update.
        total_steps: updates of the training.
        tokens: n, where the update has more than these; None for theirs.
        path: the tuned.json.

    Raises:
        ValueError: no weights of classes were tuned, or a class isn't one of them.
    """
    if "classes" not in (_read(path)["loss_weights"] or {}):
        raise ValueError(f"{path}: holds no loss weights of classes; tune them (`per: class`)")
    by_class = list(loss_weights(step, total_steps, path=path).values())
    targets, places = labels[:, 1:], classes[:, 1:].to(logits.device)
    predicted = (targets != -100).to(logits.device)
    unknown = predicted & ((places < 0) | (places >= len(by_class)))
    if unknown.any():
        found = places[unknown][0].item()
        raise ValueError(f"class {found}: must be 0 to {len(by_class) - 1}, places in {path}")
    weights = torch.tensor(by_class, device=logits.device)[places.where(predicted, 0)]
    losses = token_losses(logits[:, :-1], targets, step, total_steps, path=path)
    count = predicted.sum().clamp(min=1) if tokens is None else tokens
    return (weights * losses * predicted).sum() / count


class Mixed(IterableDataset):
    """Sequences of the domains in the order of a training, by the mixture as it moves.

    Which domain gives the sequence at a position depends on the seed and the position alone: a
    Trainer that skips what was drawn before a checkpoint, and a state that is loaded, both go on
    exactly. Where loss weights were tuned, a sequence that is a dict gets its `loss_weight`.
    """

    def __init__(
        self,
        sources: Mapping[str, Any],
        total_steps: int,
        batch_size: int,
        *,
        seed: int = 0,
        path: Path = TUNED,
    ):
        """Mixes `sources`, one for each domain of the mixture.

        A source with a length and an index begins anew past its end; another iterable is read
        once, and ends the whole when it is exhausted.

        Args:
            sources: a source for each domain of the mixture.
            total_steps: updates of the training.
            batch_size: sequences per update, over all devices and accumulated gradients.
            seed: of the draws.
            path: the tuned.json.

        Raises:
            ValueError: no mixture was tuned, or the sources aren't its domains.
        """
        domains = list(mixture(0, total_steps, path=path))
        if set(sources) != set(domains):
            found = sorted(sources)
            raise ValueError(f"sources {found}: must be the domains of {path}, {sorted(domains)}")
        self._sources, self._seed, self._path = dict(sources), seed, path
        self._total_steps, self._batch_size = total_steps, batch_size
        self._weighted = "domains" in (_read(path)["loss_weights"] or {})
        self._position, self._taken = 0, dict.fromkeys(domains, 0)

    def __iter__(self) -> Iterator[Any]:
        """Begins where the state stands; the state moves along.

        Raises:
            ValueError: several workers, each of which would draw the same.
        """
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise ValueError(f"num_workers {worker.num_workers}: must be 0 or 1 for this dataset")
        position, taken = self._position, dict(self._taken)
        readers = {name: _from(source, taken[name]) for name, source in self._sources.items()}
        while True:
            step, place = divmod(position, self._batch_size)
            weights = self._weights(step)
            for domain in self._drawn(step)[place:]:
                try:
                    sequence = next(readers[domain])
                except StopIteration:
                    return
                position, taken[domain] = position + 1, taken[domain] + 1
                self._position, self._taken = position, dict(taken)
                if weights and isinstance(sequence, Mapping):
                    sequence = {**sequence, "loss_weight": weights[domain]}
                yield sequence

    def state_dict(self) -> dict[str, Any]:
        """How many sequences were drawn, in all and of each domain."""
        return {"position": self._position, "taken": dict(self._taken)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there when it is next iterated over."""
        self._position, self._taken = state_dict["position"], dict(state_dict["taken"])

    def _drawn(self, step: int) -> list[str]:
        """The domain of each sequence of an update."""
        shares = mixture(step, self._total_steps, path=self._path)
        draw = random.Random(f"{self._seed}/{step}")
        return draw.choices(list(shares), list(shares.values()), k=self._batch_size)

    def _weights(self, step: int) -> dict[str, float]:
        if not self._weighted:
            return {}
        return loss_weights(step, self._total_steps, path=self._path)


def _from(source: Any, taken: int) -> Iterator[Any]:
    """The sequences of a source after the first `taken`."""
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return (source[i % len(source)] for i in itertools.count(taken))
    return itertools.islice(iter(source), taken, None)


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    tuned = json.loads(path.read_text(encoding="utf-8"))
    found = (tuned.get("format"), tuned.get("version"))
    if found != ("metatune-artefact", 1):
        raise ValueError(f"{path}: must be ('metatune-artefact', 1), is {found}; export it anew")
    return tuned


def _rate(rates: Mapping[str, Any], name: str, step: int, total_steps: int) -> float:
    curve = rates["parameters"][name]
    before, along = _position(rates, step, total_steps)
    return _between(curve, before, along)


def _settings(settings: Mapping[str, Any], step: int, total_steps: int) -> dict[str, float]:
    """What was tuned of the optimizer besides weight decay, by name."""
    schedules = settings.get("schedules")
    if schedules is None:
        return {}
    before, along = _position(schedules, step, total_steps)
    return {name: _between(curve, before, along) for name, curve in schedules["values"].items()}


def _numbers(settings: Mapping[str, Any], name: str, step: int, total_steps: int) -> dict[str, Any]:
    """What was tuned of the optimizer, as the group of parameter `name` has it."""
    schedules, values = settings.get("schedules"), _settings(settings, step, total_steps)
    found: dict[str, Any] = {key: values[key] for key in ("eps", "momentum") if key in values}
    if "b1" in values or "b2" in values:
        found["betas"] = tuple(values.get(key, settings[key]) for key in ("b1", "b2"))
    if schedules and name in (schedules["weight_decay"] or {}):
        before, along = _position(schedules, step, total_steps)
        found["weight_decay"] = _between(schedules["weight_decay"][name], before, along)
    return found


def _columns(field: str, step: int, total_steps: int, path: Path) -> dict[str, float]:
    schedule = _read(path)[field]
    if schedule is None:
        raise ValueError(f"{path}: holds no {field}; tune it (`tune: {{{field}: ...}}`)")
    before, along = _position(schedule, step, total_steps)
    columns = zip(*schedule["weights"], strict=True)
    values = [_between(column, before, along) for column in columns]
    return dict(zip(schedule.get("domains") or schedule["classes"], values, strict=True))


def _position(schedule: Mapping[str, Any], step: int, total_steps: int) -> tuple[int, float]:
    """The knot at or before `step`, and how far towards the next the value has gone, 0 to 1."""
    if step < 0 or total_steps < 1:
        raise ValueError(f"step {step} of {total_steps}: steps count from 0, totals from 1")
    knots = schedule["knots"]
    before = bisect.bisect_right(knots, (step + STEP_TOLERANCE) / total_steps) - 1
    if schedule["interpolation"] == "constant" or before == len(knots) - 1:
        return before, 0.0
    span = knots[before + 1] - knots[before]
    return before, max(0.0, step / total_steps - knots[before]) / span


def _between(values: Any, before: int, along: float) -> float:
    if along == 0.0:
        return values[before]
    return (1 - along) * values[before] + along * values[before + 1]


def _check_names(trained: Collection[str], curves: Collection[str], path: Path) -> None:
    without = [name for name in trained if name not in curves]
    if not without:
        return
    lines = [f"{len(without)} trainable parameters of the model have no curve in {path}:"]
    for name in without:
        near = difflib.get_close_matches(name, curves, n=1)
        lines.append(f"  {name}" + (f" (nearest: {near[0]})" if near else ""))
    unused = [name for name in curves if name not in trained]
    lines.append(f"{len(unused)} curves have no trainable parameter in the model:")
    lines.extend(f"  {name}" for name in unused)
    lines.append("Freeze those parameters, or map names by `checkpoint_name`.")
    raise ValueError("\n".join(lines))
