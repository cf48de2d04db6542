"""The tuned schedules of the tuned.json beside this file, for Optax.

    from metatune_schedules import optimizer

    tuned = optimizer(total_steps)
    state = tuned.init(params)
    updates, state = tuned.update(gradients, state, params)

Parameters are dicts, flat or nested, whose keys joined by dots are the names of the checkpoint:
{"model.embed_tokens.weight": ...} or {"model": {"embed_tokens": {"weight": ...}}}. Step 0 is the
first update. Schedules are written over fractions of training: `total_steps` is the number of
updates of your training, however long.
"""

import difflib
import functools
import json
import re
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

TUNED = Path(__file__).with_name("tuned.json")

STEP_TOLERANCE = 1e-6  # of a step: a knot k/T times a total T may miss k by rounding

Named = Callable[[str], str]
"""From the name of a parameter, its keys joined by dots, to that in tuned.json."""

OF_BLOCK = re.compile(r"\.\d+\.")
"""In the name of what a block has."""

FUSED_EXPERTS = re.compile(r"\.experts\.(?!\d)")
"""In the name of a tensor of all experts."""


def schedules(total_steps: int, *, path: Path = TUNED) -> dict[str, optax.Schedule]:
    """A schedule for each label of `labels`: from the update, 0 for the first, to the rate.

    Where rates were tuned within parameters, `scale_elements` is what they are times.

    Args:
        total_steps: updates of the training.
        path: the tuned.json.

    Raises:
        ValueError: a total below 1.
    """
    rates = _read(path)["learning_rates"]
    return {
        label: _schedule(rates, rates["parameters"][label], total_steps)
        for label in dict.fromkeys(_labels(path).values())
    }


def labels(params: Any, *, path: Path = TUNED, checkpoint_name: Callable[[str], str] = str) -> Any:
    """The label of each leaf of `params`: the first parameter that has the same curve.

    Args:
        params: dicts, flat or nested.
        path: the tuned.json.
        checkpoint_name: gives the name in tuned.json of a parameter whose keys, joined by dots, are
            another: `layers_0.attention.kernel` of a module of Flax, say.

    Raises:
        ValueError: a parameter has no curve, or a curve no parameter.
    """
    known = _labels(path)
    names = [checkpoint_name(name) for name in _names(params)]
    _check_names(names, known, path)
    return _by_name(lambda name: known[checkpoint_name(name)], params)


def optimizer(
    total_steps: int, *, path: Path = TUNED, checkpoint_name: Callable[[str], str] = str
) -> optax.GradientTransformation:
    """The optimizer that the rates were tuned for: clipping, weight decay, a curve a parameter.

    What else was tuned of it is that of each update too. `checkpoint_name` is that of `labels`.

    Raises:
        ValueError: a total below 1, or another optimizer; from its `init`, a parameter without a
            curve.
    """
    settings = _read(path)["optimizer"]
    for own in settings.get("groups", [settings]):
        if own["kind"] not in BUILDERS:
            raise ValueError(f"{path}: {own['kind']} is none of {', '.join(BUILDERS)}")
    rates: dict[Hashable, optax.GradientTransformation] = {
        label: optax.scale_by_learning_rate(schedule)
        for label, schedule in schedules(total_steps, path=path).items()
    }
    named = functools.partial(labels, path=path, checkpoint_name=checkpoint_name)
    correct = _correction(path)
    if correct is not None and checkpoint_name is not str:
        raise ValueError("checkpoint_name: a learned update knows parameters by their own names")
    inner = [_at_each_update(settings, total_steps, correct, checkpoint_name)]
    each = settings.get("groups", [settings])
    turns = any(own["kind"] in ("adamh", "muonh") for own in each)
    if turns:
        inner.append(_as_long(settings, checkpoint_name))
    if "elements" in _read(path)["learning_rates"]:
        inner.append(scale_elements(total_steps, path=path, checkpoint_name=checkpoint_name))
    after = [_turned(settings, checkpoint_name)] if turns else []
    return optax.chain(*inner, optax.partition(rates, named), *after)


def _adam(settings: Mapping[str, Any]) -> optax.GradientTransformation:
    return optax.scale_by_adam(**{key: settings[key] for key in ("b1", "b2", "eps", "eps_root")})


def _adamw(settings: Mapping[str, Any], decay: optax.GradientTransformation, named: Named) -> Any:
    return _adam(settings), decay


def _sgd(settings: Mapping[str, Any], decay: optax.GradientTransformation, named: Named) -> Any:
    return decay, optax.trace(settings["momentum"], nesterov=settings["nesterov"])


def _lion(settings: Mapping[str, Any], decay: optax.GradientTransformation, named: Named) -> Any:
    return optax.scale_by_lion(settings["b1"], settings["b2"]), decay


def _adopt(settings: Mapping[str, Any], decay: optax.GradientTransformation, named: Named) -> Any:
    moments = {key: settings[key] for key in ("b1", "b2", "eps")}
    return optax.contrib.scale_by_adopt(**moments), decay


def _muon(settings: Mapping[str, Any], decay: optax.GradientTransformation, named: Named) -> Any:
    def scaled(updates: Any, params: Any = None) -> Any:
        def scale(axes: optax.contrib.MuonDimensionNumbers, update: Any) -> Any:
            inputs, outputs = (update.shape[at] for at in (axes.reduction_axis, axes.output_axis))
            return max(1.0, outputs / inputs) ** 0.5 * update

        axes = _axes(settings, named, updates)
        return jax.tree.map(scale, axes, updates, is_leaf=_is_axes)

    own = optax.chain(_orthogonal(settings, named, settings["momentum"]), optax.stateless(scaled))
    return _of_matrices(settings, named, own), decay


def _muonh(settings: Mapping[str, Any], decay: optax.GradientTransformation, named: Named) -> Any:
    momentum = optax.trace(settings["momentum"], nesterov=settings["nesterov"])
    own = optax.chain(momentum, _orthogonal({**settings, "nesterov": False}, named, 0.0))
    return _of_matrices(settings, named, own), decay


def _orthogonal(
    settings: Mapping[str, Any], named: Named, momentum: Any
) -> optax.GradientTransformation:
    return optax.contrib.scale_by_muon(
        ns_steps=settings["newton_schulz_steps"],
        beta=momentum,
        eps=settings["eps"],
        nesterov=settings["nesterov"],
        weight_dimension_numbers=functools.partial(_axes, settings, named),
    )


def _axes(settings: Mapping[str, Any], named: Named, tree: Any) -> Any:
    """Inputs and outputs of each matrix: the checkpoint's [out, in], but for those that say so."""

    def axes(name: str) -> optax.contrib.MuonDimensionNumbers:
        turned = named(name) in settings.get("inputs_first", ())
        return optax.contrib.MuonDimensionNumbers(*((0, 1) if turned else (1, 0)))

    return _by_name(axes, tree)


def _is_axes(node: Any) -> bool:
    return isinstance(node, optax.contrib.MuonDimensionNumbers)


def _of_matrices(
    settings: Mapping[str, Any], named: Named, muon: optax.GradientTransformation
) -> optax.GradientTransformation:
    """`muon` for the matrices of the blocks, Adam for all else."""

    def which(params: Any) -> Any:
        def label(keys: Any, param: Any) -> str:
            name = named(_name(keys))
            listed = settings.get("orthogonal")
            matrix = _is_of_block(name, param) if listed is None else name in listed
            return "muon" if matrix else "adam"

        return jax.tree_util.tree_map_with_path(label, params)

    each: dict[Hashable, Any] = {"muon": muon, "adam": _adam(settings)}
    return optax.partition(each, which)


def _is_of_block(name: str, param: Any) -> bool:
    """Whether it is a matrix of a block; experts in one tensor aren't."""
    return param.ndim == 2 and bool(OF_BLOCK.search(name)) and not FUSED_EXPERTS.search(name)


def _keeps_its_norm(settings: Mapping[str, Any], name: str, param: Any) -> bool:
    if settings["kind"] == "groups":
        return any(name in group.get("turned", ()) for group in settings["groups"])
    return _is_of_block(name, param) or (param.ndim == 2 and "lm_head" in name.split("."))


def _as_long(settings: Mapping[str, Any], named: Named) -> optax.GradientTransformation:
    """Directions of what keeps its norm as long as the parameter: the rate is how far it turns."""

    def scale(keys: Any, update: Any, param: Any) -> Any:
        if not _keeps_its_norm(settings, named(_name(keys)), param):
            return update
        length = jnp.linalg.norm(update)
        return update * jnp.linalg.norm(param) / jnp.where(length > 0, length, 1)

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates, params)
    )


def _turned(settings: Mapping[str, Any], named: Named) -> optax.GradientTransformation:
    """Updates of what keeps its norm, back onto the sphere."""

    def turn(keys: Any, update: Any, param: Any) -> Any:
        if not _keeps_its_norm(settings, named(_name(keys)), param):
            return update
        moved = param + update
        length = jnp.linalg.norm(moved)
        return moved * jnp.linalg.norm(param) / jnp.where(length > 0, length, 1) - param

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(turn, updates, params)
    )


Correction = Callable[..., optax.GradientTransformation]

BUILDERS = {
    "adamw": _adamw,
    "sgd": _sgd,
    "lion": _lion,
    "adopt": _adopt,
    "muon": _muon,
    "adamh": _adamw,
    "muonh": _muonh,
}


def _correction(path: Path) -> Correction | None:
    """Of a direction, from how far training is, by a learned update; None where none was tuned."""
    if "learned_update" not in _read(path):
        return None
    # In an export of one alone.
    from metatune_learned_update import corrected  # pyright: ignore[reportMissingImports]

    return functools.partial(corrected, path=path)


def _direction(
    settings: Mapping[str, Any],
    checkpoint_name: Callable[[str], str],
    correct: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
    """An update before its learning rate; settings may be traced, weight decay goes by name."""

    def add(updates: Any, params: Any) -> Any:
        decay = settings["weight_decay"]
        weights = _by_name(lambda name: decay.get(checkpoint_name(name), 0.0), params)
        return jax.tree.map(lambda u, p, weight: u + weight * p, updates, params, weights)

    decay = optax.stateless(add)
    if settings["kind"] == "groups":
        inner = (_side_by_side(settings, decay, checkpoint_name),)
    else:
        inner = BUILDERS[settings["kind"]](settings, decay, checkpoint_name)
    if correct is not None:
        inner = (correct(optax.chain(*inner)),)
    if settings["clip_norm"] is not None:
        inner = (optax.clip_by_global_norm(settings["clip_norm"]), *inner)
    return optax.chain(*inner)


def _side_by_side(
    settings: Mapping[str, Any], decay: optax.GradientTransformation, named: Named
) -> optax.GradientTransformation:
    """Each group's optimizer on its own parameters."""
    place = {
        name: at for at, group in enumerate(settings["groups"]) for name in group["parameters"]
    }
    each: dict[Hashable, Any] = {
        at: optax.chain(*BUILDERS[group["kind"]](group, decay, named))
        for at, group in enumerate(settings["groups"])
    }
    return optax.partition(each, lambda tree: _by_name(lambda name: place[named(name)], tree))


def _at_each_update(
    settings: Mapping[str, Any],
    total_steps: int,
    correct: Correction | None,
    checkpoint_name: Callable[[str], str],
) -> optax.GradientTransformation:
    """`_direction` with the numbers of each update."""
    tuned = settings.get("schedules") or {"values": {}, "weight_decay": None}
    values = {name: _schedule(tuned, curve, total_steps) for name, curve in tuned["values"].items()}
    decays = {
        name: _schedule(tuned, curve, total_steps)
        for name, curve in (tuned["weight_decay"] or {}).items()
    }
    groups = settings.get("groups", ())
    own = {name: group["weight_decay"] for group in groups for name in group["parameters"]}
    fixed = {
        name: own[name] if groups else settings["weight_decay"] for name in settings["decayed"]
    }

    def at(step: Any) -> dict[str, Any]:
        decay = {**fixed, **{name: schedule(step) for name, schedule in decays.items()}}
        now = {name: schedule(step) for name, schedule in values.items()}
        mine = [
            {
                **group,
                **{
                    key: now[f"groups[{at}].{key}"] for key in group if f"groups[{at}].{key}" in now
                },
            }
            for at, group in enumerate(groups)
        ]
        return {**settings, "weight_decay": decay, **now, **({"groups": mine} if groups else {})}

    def direction(step: Any) -> optax.GradientTransformation:
        own = correct and functools.partial(correct, progress=step / total_steps)
        return _direction(at(step), checkpoint_name, own)

    def init(params: Any) -> Any:
        return jnp.zeros([], jnp.int32), direction(0).init(params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        step, inner = state
        updates, inner = direction(step).update(updates, inner, params)
        return updates, (optax.safe_increment(step), inner)

    return optax.GradientTransformation(init, update)


class ElementState(NamedTuple):
    """State of `scale_elements`: updates done, and the factors [knots, ...] of each parameter."""

    step: Any
    factors: Any


def scale_elements(
    total_steps: int, *, path: Path = TUNED, checkpoint_name: Callable[[str], str] = str
) -> optax.GradientTransformation:
    """Multiplies the updates of elements, rows or columns by their factors of the learning rate.

    The factors are read from the tuned.safetensors beside `path`, into the state.
    `checkpoint_name` is that of `labels`.

    Raises:
        ValueError: a total below 1, or rates that weren't tuned within parameters; from its
            `init`, a parameter without factors or of another shape.
    """
    elements = _read(path)["learning_rates"].get("elements")
    if elements is None:
        raise ValueError(f"{path}: one rate for each parameter: tune `per: element`, row or column")
    _refuse_total(total_steps)
    knots = np.asarray(elements["knots"]) * total_steps
    starts = np.ceil(knots - STEP_TOLERANCE).astype(np.int32)

    def init(params: Any) -> ElementState:
        from safetensors.numpy import load_file  # needed for rates within parameters alone

        held = load_file(path.with_name("tuned.safetensors"))
        names = [checkpoint_name(name) for name in _names(params)]
        _check_names(names, elements["shapes"], path)

        def factors(keys: Any, param: Any) -> jax.Array:
            found = held[checkpoint_name(_name(keys))]
            if not _broadcasts(found.shape[1:], param.shape):
                raise ValueError(
                    f"{_name(keys)}: factors {list(found.shape[1:])} in {path}, but the parameter "
                    f"is {list(param.shape)}; give it the checkpoint's layout"
                )
            return jnp.asarray(found)

        return ElementState(
            jnp.zeros((), jnp.int32), jax.tree_util.tree_map_with_path(factors, params)
        )

    def update(updates: Any, state: ElementState, params: Any = None) -> tuple[Any, ElementState]:
        del params
        # In whole steps, as of `_schedule`.
        before = jnp.searchsorted(starts, state.step, side="right") - 1
        after = jnp.minimum(before + 1, len(knots) - 1)
        along = 0.0
        if elements["interpolation"] == "linear":
            gaps = np.append(np.diff(knots), 1.0)
            past = state.step - jnp.asarray(knots)[before]
            along = jnp.where(after > before, jnp.maximum(past, 0) / jnp.asarray(gaps)[before], 0)

        def scale(update: jax.Array, factors: jax.Array) -> jax.Array:
            chosen = (1 - along) * factors[before] + along * factors[after]
            return update * chosen.astype(update.dtype)

        scaled = jax.tree.map(scale, updates, state.factors)
        return scaled, ElementState(optax.safe_increment(state.step), state.factors)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def mixture(step: int, total_steps: int, *, path: Path = TUNED) -> dict[str, float]:
    """The share of each domain in the sequences of update `step`; they sum to one.

    Raises:
        ValueError: no mixture was tuned, or a total below 1.
    """
    shares = _columns("mixture", step, total_steps, path)
    whole = sum(shares.values())
    return {domain: share / whole for domain, share in shares.items()}


def loss_weights(step: int, total_steps: int, *, path: Path = TUNED) -> dict[str, float]:
    """The weight of the loss of each domain's sequences, or each class's tokens, at update `step`.

    Those of domains average one, those of classes average one over the training tokens.

    Raises:
        ValueError: no loss weights were tuned, or a total below 1.
    """
    return _columns("loss_weights", step, total_steps, path)


def token_classes(tokens: Any, *, path: Path = TUNED) -> jax.Array:
    """The place of each token's class in `loss_weights(...)`, where position or vocabulary says it.

    Args:
        tokens: ids [batch, sequence], each sequence from its first token on.
        path: the tuned.json.

    Returns:
        Integers [batch, sequence].

    Raises:
        ValueError: no such weights were tuned, or not for sequences as long.
    """
    weights, tokens = _read(path)["loss_weights"] or {}, jnp.asarray(tokens)
    if "vocabulary" in weights:
        return jnp.asarray(weights["vocabulary"])[tokens]
    if "positions" not in weights:
        raise ValueError(f"{path}: holds no loss weights by position or frequency of tokens")
    length, starts = weights["positions"]["sequence_length"], weights["positions"]["starts"]
    if tokens.shape[-1] > length:
        raise ValueError(f"{tokens.shape[-1]} tokens: weights were tuned for up to {length}")
    places = np.searchsorted(starts[1:], np.arange(tokens.shape[-1]), side="right")
    return jnp.broadcast_to(places[None], tokens.shape)


def loss_terms(step: int, total_steps: int, *, path: Path = TUNED) -> dict[str, float]:
    """What the loss has at update `step` beside the next token's term: coefficients by name.

    Raises:
        ValueError: a negative step or a total below 1.
    """
    terms = _read(path).get("loss_terms")
    return {} if terms is None else _at(terms, terms["values"], step, total_steps)


def token_losses(
    logits: jax.Array, targets: Any, step: int, total_steps: int, *, path: Path = TUNED
) -> jax.Array:
    """The loss of each token at update `step`, with the terms of `loss_terms`.

    Args:
        logits: [..., vocabulary].
        targets: integers [...]; the loss of one below 0, as -100, is 0.
        step: 0 is the first update; a Python integer.
        total_steps: updates of the training.
        path: the tuned.json.

    Returns:
        [...].

    Raises:
        ValueError: a negative step or a total below 1.
    """
    terms = loss_terms(step, total_steps, path=path)
    predicted, targets = targets >= 0, jnp.maximum(targets, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    if "label_smoothing" in terms:
        target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        losses += terms["label_smoothing"] * (target - jnp.mean(logits, axis=-1))
    if "z_loss" in terms:
        losses += terms["z_loss"] * jax.nn.logsumexp(logits, axis=-1) ** 2
    return jnp.where(predicted, losses, 0)


def token_weights(classes: Any, step: int, total_steps: int, *, path: Path = TUNED) -> jax.Array:
    """The weights of the losses of tokens at update `step`.

    Args:
        classes: place of each token's class in `loss_weights(...)`, integers of any shape.
        step: 0 is the first update; a Python integer.
        total_steps: updates of the training.
        path: the tuned.json.

    Returns:
        Of the shape of `classes`.

    Raises:
        ValueError: no weights of classes were tuned, or a total below 1.
    """
    if "classes" not in (_read(path)["loss_weights"] or {}):
        raise ValueError(f"{path}: holds no loss weights of classes; tune them (`per: class`)")
    by_class = list(loss_weights(step, total_steps, path=path).values())
    return jnp.asarray(by_class)[classes]


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    tuned = json.loads(path.read_text(encoding="utf-8"))
    found = (tuned.get("format"), tuned.get("version"))
    if found != ("metatune-artefact", 1):
        raise ValueError(f"{path}: must be ('metatune-artefact', 1), is {found}; export it anew")
    return tuned


@functools.cache
def _labels(path: Path) -> dict[str, str]:
    first: dict[tuple[float, ...], str] = {}
    curves = _read(path)["learning_rates"]["parameters"]
    return {name: first.setdefault(tuple(curve), name) for name, curve in curves.items()}


def _schedule(rates: Mapping[str, Any], curve: list[float], total_steps: int) -> optax.Schedule:
    _refuse_total(total_steps)
    knots, values = np.asarray(rates["knots"]) * total_steps, np.asarray(curve)
    if rates["interpolation"] == "linear":
        return lambda step: jnp.interp(step, knots, values)
    # In whole steps: a comparison of float32 fractions could come one step late.
    starts = np.ceil(knots - STEP_TOLERANCE).astype(np.int32)
    return lambda step: jnp.asarray(values)[jnp.searchsorted(starts, step, side="right") - 1]


def _refuse_total(total_steps: int) -> None:
    if total_steps < 1:
        raise ValueError(f"total_steps {total_steps}: a training has at least one update")


def _broadcasts(block: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(block) == len(shape) and all(
        size in (1, own) for size, own in zip(block, shape, strict=True)
    )


def _columns(field: str, step: int, total_steps: int, path: Path) -> dict[str, float]:
    schedule = _read(path)[field]
    if schedule is None:
        raise ValueError(f"{path}: holds no {field}; tune it (`tune: {{{field}: ...}}`)")
    names = schedule.get("domains") or schedule["classes"]
    curves = dict(zip(names, zip(*schedule["weights"], strict=True), strict=True))
    return _at(schedule, curves, step, total_steps)


def _at(
    schedule: Mapping[str, Any], curves: Mapping[str, Any], step: int, total_steps: int
) -> dict[str, float]:
    """The value of each curve, [knots], at update `step`."""
    if step < 0 or total_steps < 1:
        raise ValueError(f"step {step} of {total_steps}: steps count from 0, totals from 1")
    knots = np.asarray(schedule["knots"])
    if schedule["interpolation"] == "linear":
        row = {name: np.interp(step / total_steps, knots, curve) for name, curve in curves.items()}
    else:
        before = np.searchsorted(knots, (step + STEP_TOLERANCE) / total_steps, "right") - 1
        row = {name: curve[before] for name, curve in curves.items()}
    return {name: float(value) for name, value in row.items()}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _names(params: Any) -> list[str]:
    return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _by_name(function: Any, params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: function(_name(path)), params)


def _check_names(trained: Collection[str], curves: Collection[str], path: Path) -> None:
    without = [name for name in trained if name not in curves]
    unused = [name for name in curves if name not in trained]
    if not without and not unused:
        return
    lines = [f"{len(without)} parameters have no curve in {path}:"]
    for name in without:
        near = difflib.get_close_matches(name, curves, n=1)
        lines.append(f"  {name}" + (f" (nearest: {near[0]})" if near else ""))
    lines.append(f"{len(unused)} curves have no parameter:")
    lines.extend(f"  {name}" for name in unused)
    lines.append("Give the parameters the names of the checkpoint, or map them (checkpoint_name).")
    raise ValueError("\n".join(lines))
