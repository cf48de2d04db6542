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
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

TUNED = Path(__file__).with_name("tuned.json")

STEP_TOLERANCE = 1e-6  # of a step: a knot k/T times a total T may miss k by rounding

WRAPPERS = frozenset(
    (
        "_checkpoint_wrapped_module",
        "_fsdp_wrapped_module",
        "_orig_mod",
        "base_layer",
        "modules_to_save",
        "module",
    )
)
"""Parts of names that wrappers add: activation checkpointing, FSDP, compile, PEFT, DDP."""

EXPERT = re.compile(r"(.*\.experts)\.\d+\.(gate|up|down)_proj\.weight")
IN_MEMORY = {"gate": "{}.gate_up_proj", "up": "{}.gate_up_proj", "down": "{}.down_proj"}
"""Names of the tensors that transformers 5 holds a checkpoint's experts in, all of a block."""


def param_groups(
    model: torch.nn.Module,
    total_steps: int,
    *,
    path: Path = TUNED,
    checkpoint_name: Callable[[str], str] = str,
    partial: bool = False,
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters, for `torch.optim.AdamW` or `torch.optim.SGD`.

    Where several optimizers were tuned side by side, `kind` in a group says which it is for: adamw,
    sgd, or muon for `torch.optim.Muon`.

    Parameters with the same curve and the same weight decay share a group, which has every number
    of the tuned optimizer that PyTorch has: `lr`, `weight_decay`, `betas` and `eps`, or `momentum`
    and `nesterov`. `curve` in a group is the name of its first parameter: by it `Schedule` finds
    the curve, and what else was tuned. Where rates were tuned within parameters, or a learned
    update was, each has a group of its own, and `Schedule` scales what the optimizer does to it.

    Args:
        model: names of `named_parameters()` are those of its Hugging Face checkpoint, but for
            what compile, DDP, FSDP, activation checkpointing and PEFT add to them. Experts that
            transformers holds in one tensor are known, where all have one curve.
        total_steps: updates of the training.
        path: the tuned.json.
        checkpoint_name: gives the name in tuned.json of a parameter named otherwise in `model`.
        partial: `model` is a part of the tuned one, as a stage of a pipeline is.

    Raises:
        ValueError: a trainable parameter has no curve, a curve no parameter, or experts in one
            tensor have several curves.
    """
    tuned = _read(path)
    curves, settings = tuned["learning_rates"]["parameters"], tuned["optimizer"]
    named = _matched(model, tuned, path, checkpoint_name, partial)
    decayed, grouped = set(settings["decayed"]), settings["kind"] == "groups"
    tuned_decay = (settings.get("schedules") or {}).get("weight_decay") or {}
    if settings["kind"] not in ("adamw", "sgd", "groups"):
        raise ValueError(f"{path}: holds rates of {settings['kind']}, not of adamw or sgd")
    groups: dict[Any, dict[str, Any]] = {}
    for name, parameter in named:
        own, prefix = _own(settings, name)
        decay = own["weight_decay"] if name in decayed else 0.0
        new = {"params": [], "weight_decay": decay, "curve": name, **_fixed_numbers(own, name)}
        kind = _kind(own, name)
        if kind == "muon" and parameter.ndim != 2:
            raise ValueError(
                f"{name}: torch.optim.Muon takes matrices alone, and the model holds it in a "
                f"tensor {list(parameter.shape)}; tune experts by adamw, in a group of their own"
            )
        if grouped:
            new["kind"] = kind
        apart = "elements" in tuned["learning_rates"] or "learned_update" in tuned
        single = name if apart else None
        mesh = getattr(parameter, "device_mesh", None)  # one kernel can't span several
        by_name = tuple(tuned_decay.get(name, ()))
        alike = (tuple(curves[name]), decay, by_name, single, mesh, prefix, kind)
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
    partial: bool = False,
    **options: Any,
) -> torch.optim.Optimizer:
    """The optimizer that the rates were tuned for, with the groups of `param_groups`.

    It doesn't clip: call `torch.nn.utils.clip_grad_norm_` before each step, as README.md says.

    Args:
        model: as of `param_groups`.
        total_steps: updates of the training.
        path: the tuned.json.
        checkpoint_name: as of `param_groups`.
        partial: as of `param_groups`.
        **options: how PyTorch computes it, `fused=True` say.

    Raises:
        ValueError: a trainable parameter has no curve, or a curve no parameter.
    """
    groups = param_groups(
        model, total_steps, path=path, checkpoint_name=checkpoint_name, partial=partial
    )
    kind = _read(path)["optimizer"]["kind"]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_kind.setdefault(group.get("kind", kind), []).append(group)
    made: list[torch.optim.Optimizer] = []
    for name, own in by_kind.items():
        if name == "muon":
            made.append(torch.optim.Muon(own))
        else:
            made.append((torch.optim.AdamW if name == "adamw" else torch.optim.SGD)(own, **options))
    return made[0] if len(made) == 1 else SideBySide(made)


class SideBySide(torch.optim.Optimizer):
    """Several optimizers as one: its groups and its state are all of theirs.

    A checkpoint of it is like that of any optimizer.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]):
        """Of optimizers that haven't made an update yet."""
        self.optimizers = list(optimizers)
        super().__init__([group for own in optimizers for group in own.param_groups], {})
        self._share()

    def step(self, closure: Any = None) -> Any:
        """An update of each of them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for own in self.optimizers:
            own.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the state of all of them."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Gives each the one state, and its groups: loading makes new ones of both."""
        groups = iter(self.param_groups)
        for own in self.optimizers:
            own.state = self.state
            own.param_groups = [next(groups) for _ in own.param_groups]


class Schedule(LRScheduler):
    """Sets the rate of every group of `param_groups` to its curve at each update.

    It counts what the optimizer does: `step()` goes on by one update if the optimizer made one
    since, and stays where it is if it didn't. A GradScaler that skips an update, a loop that
    accumulates gradients and `accelerate`, whose processes each step it, can't move it apart.

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
        inner: Any = optimizer
        while (inner := getattr(inner, "optimizer", None)) is not None:
            # As accelerate wraps it, and DeepSpeed's ZeRO within, which is no optimizer itself.
            optimizer = inner if isinstance(inner, torch.optim.Optimizer) else optimizer
        rates, settings = tuned["learning_rates"], tuned["optimizer"]
        names = [group["curve"] for group in optimizer.param_groups]
        self._rates = lambda step: [_rate(rates, name, step, total_steps) for name in names]
        self._numbers = lambda step: [_numbers(settings, name, step, total_steps) for name in names]
        self._agreed = {"total_steps": total_steps}
        self._updated = True  # the first step(), which LRScheduler makes, is to update 0
        super().__init__(optimizer)
        optimizer.register_step_post_hook(self._count)
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
        """Sets the rates of the next update, and what else was tuned of the optimizer.

        Raises:
            ValueError: an `epoch`: the optimizer's updates are what counts.
        """
        if epoch is not None:
            raise ValueError(f"epoch {epoch}: leave it out, updates of the optimizer are counted")
        if self._updated:
            self._updated = False
            super().step()
            self._set_numbers()

    @property
    def last_used(self) -> dict[str, float]:
        """The rate of each group at the update made last, by the group's first parameter."""
        names = [group["curve"] for group in self.optimizer.param_groups]
        done = self.last_epoch if self._updated else self.last_epoch - 1
        return dict(zip(names, self._rates(max(0, done)), strict=True))

    def must_agree(self, **numbers: int) -> None:
        """Numbers that go into the state: a resumed training must have the same."""
        self._agreed |= numbers

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands, without the curves."""
        curves = ("_rates", "_numbers")
        return {key: value for key, value in super().state_dict().items() if key not in curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from where `state_dict` stood, with the rates of that update.

        Raises:
            ValueError: the training before had other numbers, `total_steps` say.
        """
        then = state_dict.get("_agreed", {})
        for name, number in self._agreed.items():
            if then.get(name, number) != number:
                raise ValueError(
                    f"{name} {number}: the training that is resumed had {then[name]}; give it the "
                    "same, or begin anew from its weights"
                )
        super().load_state_dict({**state_dict, "_agreed": {**self._agreed, **then}})
        self._updated = False
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
        self._set_numbers()

    def _count(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Notes that an update was made; a fused optimizer skips one by itself."""
        skipped = getattr(optimizer, "found_inf", None)
        self._updated = self._updated or skipped is None or not bool(skipped)

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


def clip_norm(step: int, total_steps: int, *, path: Path = TUNED) -> float | None:
    """The largest global norm of the gradient at update `step`; None for no clipping."""
    settings = _read(path)["optimizer"]
    return _settings(settings, step, total_steps).get("clip_norm", settings["clip_norm"])


def clips_over_time(*, path: Path = TUNED) -> bool:
    """Whether `clip_norm` moves over training."""
    return "clip_norm" in ((_read(path)["optimizer"].get("schedules") or {}).get("values") or {})


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


def domain_weights(step: int, total_steps: int, *, path: Path = TUNED) -> dict[str, float]:
    """`loss_weights` where those of domains were tuned; none otherwise."""
    held = _read(path)["loss_weights"] or {}
    return loss_weights(step, total_steps, path=path) if "domains" in held else {}


def class_weights(step: int, total_steps: int, *, path: Path = TUNED) -> dict[str, float]:
    """`loss_weights` where those of classes of tokens were tuned; none otherwise."""
    held = _read(path)["loss_weights"] or {}
    return loss_weights(step, total_steps, path=path) if "classes" in held else {}


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
    by_class = list(class_weights(step, total_steps, path=path).values())
    if not by_class:
        raise ValueError(f"{path}: holds no loss weights of classes; tune them (`per: class`)")
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
    own, prefix = _own(settings, name)
    values = {key.removeprefix(prefix): v for key, v in values.items() if key.startswith(prefix)}
    kind = _kind(own, name)
    has = ("eps",) if kind == "adamw" else ("eps", "momentum")
    found: dict[str, Any] = {key: values[key] for key in has if key in values}
    if kind == "adamw" and ("b1" in values or "b2" in values):
        found["betas"] = tuple(values.get(key, own[key]) for key in ("b1", "b2"))
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


def _own(settings: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str]:
    """The settings of a parameter's optimizer, and how the names of its tuned numbers begin."""
    for place, group in enumerate(settings.get("groups", ())):
        if name in group["parameters"]:
            return group, f"groups[{place}]."
    return settings, ""


def _kind(settings: Mapping[str, Any], name: str) -> str:
    """The optimizer of a parameter; of Muon's group AdamW, where it is no matrix of a block."""
    muon = settings["kind"] == "muon"
    return settings["kind"] if not muon or name in settings["orthogonal"] else "adamw"


def _fixed_numbers(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a group has of the optimizer besides its rate and its weight decay."""
    if (kind := _kind(settings, name)) == "muon":
        return {
            "momentum": settings["momentum"],
            "nesterov": settings["nesterov"],
            "ns_steps": settings["newton_schulz_steps"],
            "eps": settings["eps"],
            "adjust_lr_fn": "original",  # sqrt(max(1, outputs / inputs)), as it was tuned
        }
    if kind == "adamw":
        return {"betas": (settings["b1"], settings["b2"]), "eps": settings["eps"]}
    # Without momentum there is nothing to look ahead along, and PyTorch refuses the pair.
    momentum = settings["momentum"]
    return {"momentum": momentum, "nesterov": settings["nesterov"] and momentum > 0}


def bare(name: str) -> str:
    """A parameter's name without what wrappers of modules and PEFT add to it."""
    parts = name.split(".")
    kept = [
        part
        for before, part in zip(["", *parts], parts, strict=False)
        if part not in WRAPPERS
        # PEFT's adapter, which it doesn't save.
        and not (part == "default" and before.startswith(("lora_", "modules_to_save")))
    ]
    return ".".join(kept[2:] if kept[:2] == ["base_model", "model"] else kept)


def _matched(
    model: torch.nn.Module,
    tuned: Mapping[str, Any],
    path: Path,
    checkpoint_name: Callable[[str], str],
    partial: bool,
) -> list[tuple[str, torch.nn.Parameter]]:
    """The trainable parameters under their names in tuned.json, each of them there.

    A tensor of experts has the name of the first.
    """
    curves: Collection[str] = tuned["learning_rates"]["parameters"]
    of_bare = Counter(map(bare, curves))
    by_bare = {bare(name): name for name in curves if of_bare[bare(name)] == 1}
    stacks = _stacks(curves)
    by_bare |= {tensor: names[0] for tensor, names in stacks.items() if tensor not in by_bare}

    def known(name: str) -> str:
        name = checkpoint_name(name)
        return name if name in curves else by_bare.get(bare(name), name)

    named = [(known(name), p) for name, p in model.named_parameters() if p.requires_grad]
    # Tied and frozen parameters are there, too.
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    there = {known(name) for name in every}
    held = {bare(checkpoint_name(name)) for name in every}
    for tensor, names in stacks.items():
        if tensor in held:
            _refuse_several(tensor, names, tuned, path)
            there.update(names)
    without = [name for name, _ in named if name not in curves]
    absent = [] if partial else [name for name in curves if name not in there]
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    lines = [f"{name}: is the name of several parameters of the model" for name in twice]
    if without:
        lines.append(f"{len(without)} trainable parameters of the model have no curve in {path}:")
    for name in without:
        near = difflib.get_close_matches(name, curves, n=1)
        lines.append(f"  {name}" + (f" (nearest: {near[0]})" if near else ""))
    if absent:
        lines.append(f"{len(absent)} curves have no parameter in the model:")
        lines.extend(f"  {name}" for name in absent)
        lines.append("Give the whole model, or say that it is a part (`partial=True`).")
    if without or twice:
        lines.append("Freeze those parameters, or map names by `checkpoint_name`.")
    if lines:
        raise ValueError("\n".join(lines))
    return named


def _stacks(curves: Collection[str]) -> dict[str, list[str]]:
    """The experts of each tensor that transformers has for them, by its name."""
    found: dict[str, list[str]] = {}
    for name in curves:
        if expert := EXPERT.fullmatch(name):
            tensor = IN_MEMORY[expert[2]].format(expert[1])
            found.setdefault(bare(tensor), []).append(name)
    return found


def _refuse_several(
    tensor: str, names: Collection[str], tuned: Mapping[str, Any], path: Path
) -> None:
    """Refuses experts of one tensor that aren't trained alike.

    Raises:
        ValueError: their curves, weight decays or optimizers differ, or they have numbers of their
            own within.
    """
    rates, settings = tuned["learning_rates"], tuned["optimizer"]
    decays = (settings.get("schedules") or {}).get("weight_decay") or {}
    what = {
        "learning rates": {tuple(rates["parameters"][name]) for name in names},
        "weight decays": {
            (name in settings["decayed"], tuple(decays.get(name, ()))) for name in names
        },
        "optimizers": {
            place
            for place, group in enumerate(settings.get("groups", ()))
            if not set(names).isdisjoint(group["parameters"])
        },
    }
    several = [head for head, found in what.items() if len(found) > 1]
    if several:
        raise ValueError(
            f"{tensor} of the model holds {len(names)} parameters of {path}, whose "
            f"{' and '.join(several)} differ: export anew with their mean (`lossy`), or tune them "
            "as one"
        )
    for key, held in (("elements", rates), ("learned_update", tuned)):
        if key in held:
            raise ValueError(
                f"{tensor} of the model holds {len(names)} parameters of {path}, of which each has "
                f"a part of `{key}`: no tensor of several can follow it"
            )
