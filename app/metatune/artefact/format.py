"""What an artefact is: tuned schedules in memory, and the value of each at a step of training.

Schedules are knots over fractions of training, so that they stretch over a run of any length.
"""

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from metatune.artefact.learned_update import LearnedUpdate
from metatune.recipe.faults import ABSENT, Fault

FORMAT = "metatune-artefact"
VERSION = 1

TUNED = "tuned.json"
TENSORS = "tuned.safetensors"
INITIALISATION = "initialisation.safetensors"
README = "README.md"
CERTIFICATE = "certificate.json"
RECIPE = "recipe.yaml"
META_PARAMETERS = "meta_parameters.safetensors"
REPLAY = "replay.json"

TABLE = "learning_rates"
"""The tensor of the rates of all parameters; others carry the name of their parameter."""

CERTIFICATE_FORMAT = "metatune-certificate"
CERTIFICATE_VERSION = 1

REPLAY_FORMAT = "metatune-replay"
REPLAY_VERSION = 1

RATE_UNIT = "absolute, per update"
MULTIPLIER_UNIT = "factor of the base schedule"
ELEMENT_UNIT = "factor of the parameter's learning rate"
MIXTURE_UNIT = "share of sequences"
LOSS_WEIGHT_UNIT = "weight of a sequence's loss, averages one over domains"
RATER_UNIT = "weight of a sequence's loss: exp(score / temperature) over its mean in the batch"
CLASS_WEIGHT_UNIT = "weight of a token's loss, averages one over training tokens"
LOSS_TERM_UNIT = "coefficient in a token's loss, the next token's term as the unit"

LOSS_TERMS = ("z_loss", "label_smoothing", "auxiliary")
"""The terms that a loss may have, beside that of the next token."""

SETTINGS = {
    "adamw": ("kind", "weight_decay", "b1", "b2", "eps", "eps_root", "clip_norm"),
    "sgd": ("kind", "weight_decay", "momentum", "nesterov", "clip_norm"),
    "lion": ("kind", "weight_decay", "b1", "b2", "clip_norm"),
    "muon": (
        "kind",
        "weight_decay",
        "momentum",
        "nesterov",
        "newton_schulz_steps",
        "b1",
        "b2",
        "eps",
        "eps_root",
        "clip_norm",
    ),
    "adafactor": (
        "kind",
        "weight_decay",
        "decay_rate",
        "clipping_threshold",
        "scale_by_parameter",
        "min_dim_size_to_factor",
        "eps",
        "clip_norm",
    ),
    "schedule_free_adamw": (
        "kind",
        "weight_decay",
        "b1",
        "b2",
        "weight_lr_power",
        "eps",
        "eps_root",
        "clip_norm",
    ),
}
"""The settings of an inner optimizer that an artefact holds, by its kind."""

STEP_TOLERANCE = 1e-6
"""Of a step: a knot k/T times a total T may miss the whole number k by rounding."""

Interpolation = Literal["constant", "linear"]


class ArtefactError(ValueError):
    """What is wrong with an artefact or with the way it is used, all faults together."""

    def __init__(self, source: str, faults: Sequence[Fault | str]):
        """Collects `faults` found in `source` (a file's path, or a name for what is in memory)."""
        self.source = source
        self.faults = tuple(faults)
        if len(self.faults) == 1:
            message = f"{source}: {self.faults[0]}"
        else:
            lines = (f"  {fault}" for fault in self.faults)
            message = "\n".join([f"{source}: {len(self.faults)} faults", *lines])
        super().__init__(message)


@dataclass(frozen=True)
class Multipliers:
    """What was tuned of the learning rates: factors of the base schedule.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        groups: a factor for each knot, by group.
        members: checkpoint names of the parameters of each group.
        interpolation: `constant` holds a knot's factor until the next, `linear` joins them.
    """

    knots: tuple[float, ...]
    groups: Mapping[str, tuple[float, ...]]
    members: Mapping[str, tuple[str, ...]]
    interpolation: Interpolation = "constant"


@dataclass(frozen=True, eq=False)
class ElementFactors:
    """What was tuned within the parameters: factors of their learning rates.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's factors until the next, `linear` joins them.
        parameters: float32 factors [knots, ...] by checkpoint name, each of the rank of the
            tensor, with its size or one along an axis: a factor for each element, row or column.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    parameters: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class LearningRates:
    """Absolute learning rates, for every parameter of the model.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's value until the next, `linear` joins them.
        parameters: float64 rates per update, [knots], by Hugging Face checkpoint name.
        multipliers: what was tuned of them; None if these rates are those of the recipe.
        elements: what was tuned within parameters: a parameter's rate times its factors is the
            rate of its elements; None if all of a parameter has one rate.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    parameters: Mapping[str, np.ndarray]
    multipliers: Multipliers | None = None
    elements: ElementFactors | None = None


@dataclass(frozen=True, eq=False)
class Mixture:
    """Shares of the sequences of a batch that each domain gives.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's shares until the next, `linear` joins them.
        domains: names, in the order of the shares.
        weights: float64 shares, [knots, domains]; each row sums to one.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    domains: tuple[str, ...]
    weights: np.ndarray

    @property
    def columns(self) -> tuple[str, ...]:
        """What the columns of the weights are of."""
        return self.domains


@dataclass(frozen=True, eq=False)
class LossWeights:
    """Weights of the loss of a sequence, by the domain that it comes from.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's weights until the next, `linear` joins them.
        domains: names, in the order of the weights.
        weights: float64 weights, [knots, domains]; each row averages one.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    domains: tuple[str, ...]
    weights: np.ndarray

    @property
    def columns(self) -> tuple[str, ...]:
        """What the columns of the weights are of."""
        return self.domains


@dataclass(frozen=True)
class Positions:
    """Classes of tokens by where in a sequence they stand.

    Attributes:
        sequence_length: tokens of a sequence.
        starts: the first position of each class, from 0; 1 is the first that is predicted.
    """

    sequence_length: int
    starts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Classes of tokens by what token they are.

    Attributes:
        classes: the place of the class of each token id, uint8 [vocabulary].
    """

    classes: np.ndarray


@dataclass(frozen=True)
class Labels:
    """Classes of tokens by the label of their document, which the data says."""


@dataclass(frozen=True, eq=False)
class ClassWeights:
    """Weights of the loss of a token, by the class that it is of.

    The loss of a sequence is Σ w l / n over its n predicted tokens.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's weights until the next, `linear` joins them.
        classes: names, in the order of the weights: text, prompt, completion, system or tool;
            position_1, ...; frequency_1, ...; or the labels of documents.
        shares: float64 shares of the training tokens, [classes]; they sum to one.
        weights: float64 weights, [knots, classes]; each row averages one over these shares.
        of: what puts a token into its class; None where the data says what part of a document it
            is of.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    classes: tuple[str, ...]
    shares: np.ndarray
    weights: np.ndarray
    of: Positions | Vocabulary | Labels | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """What the columns of the weights are of."""
        return self.classes


RATER_TENSORS = "rater."
"""What the names of the tensors of a rater begin with."""

RATER_SETTINGS = {
    "mlp": ("kind", "hidden_size", "layers", "temperature", "vocab_size", "sequence_length"),
    "transformer": (
        "kind",
        "hidden_size",
        "layers",
        "heads",
        "temperature",
        "vocab_size",
        "sequence_length",
    ),
}
"""The settings of a rater that an artefact holds, by its kind."""


@dataclass(frozen=True, eq=False)
class Rater:
    """A network that scores sequences, one for the whole training.

    The loss of a sequence weighs `exp(score / temperature)`, over its mean in the batch.

    Attributes:
        settings: exactly the `RATER_SETTINGS` of its kind; `sequence_length` is of the tokens of
            the sequences that it was tuned on.
        parameters: float32, by dotted name.
    """

    settings: Mapping[str, Any]
    parameters: Mapping[str, np.ndarray]

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """The parameters by the names of their tensors in an artefact."""
        return {f"{RATER_TENSORS}{name}": held for name, held in self.parameters.items()}


@dataclass(frozen=True, eq=False)
class OptimizerSchedules:
    """What was tuned of the numbers of the optimizer; it moves over training.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's values until the next, `linear` joins them.
        values: float64 [knots], by the name of a setting other than weight decay.
        weight_decay: float64 [knots], by the checkpoint name of each parameter that decays; None
            where it wasn't tuned.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    values: Mapping[str, np.ndarray]
    weight_decay: Mapping[str, np.ndarray] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What was tuned."""
        return (*(("weight_decay",) if self.weight_decay else ()), *self.values)

    @property
    def curves(self) -> dict[str, np.ndarray]:
        """Every curve once, [knots], by what it is of: parameters alike go by the first's name."""
        alike: dict[tuple[float, ...], list[str]] = {}
        for name, curve in (self.weight_decay or {}).items():
            alike.setdefault(tuple(curve.tolist()), []).append(name)
        decay = {
            f"weight_decay {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else ""): curve
            for curve, names in alike.items()
        }
        if len(decay) == 1:
            decay = {"weight_decay": next(iter(alike))}
        return {label: np.asarray(curve) for label, curve in decay.items()} | dict(self.values)


@dataclass(frozen=True, eq=False)
class LossTerms:
    """Terms of the training loss beside that of the next token, tuned or as the recipe has them.

    The loss of a token with logits z is `(1 - ε) (-log p_target) + ε mean_v (-log p_v) + c (log
    Σ_v exp z_v)²`, with `label_smoothing` ε and `z_loss` c. With `auxiliary` there is a head beside
    the model: that many times the cross entropy of the same token is added, of the logits that the
    model's own unembedding makes of `h + W h`, h the final features two tokens before it, in the
    same document. W is the parameter `auxiliary_head.weight`, trained from zero.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's values until the next, `linear` joins them.
        values: float64 coefficients [knots], by the name of the term.
        tuned: which of them were; the others are as the recipe has them.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    values: Mapping[str, np.ndarray]
    tuned: tuple[str, ...]


@dataclass(frozen=True)
class Optimizer:
    """The optimizer that the rates were tuned for.

    Attributes:
        settings: exactly the `SETTINGS` of its kind, plain numbers; of what was tuned those that
            it started from.
        decayed: checkpoint names of the parameters that weight decay applies to.
        schedules: what was tuned of the settings; None where nothing was.
    """

    settings: Mapping[str, Any]
    decayed: tuple[str, ...]
    schedules: OptimizerSchedules | None = None


@dataclass(frozen=True, eq=False)
class Interpolated:
    """Where a start lies between checkpoints: `θ_0 = θ + Σ_i α_i (θ_i - θ)`.

    Attributes:
        coefficients: α_i of each group of parameters, by checkpoint.
        members: checkpoint names of the parameters of each group; the others stay as they were.
    """

    coefficients: Mapping[str, Mapping[str, float]]
    members: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Initialisation:
    """What the tuned training starts from.

    Attributes:
        kind: what was tuned of it.
        parameters: float32 weights by checkpoint name, of all that is trained.
        interpolated: where between checkpoints it lies; None of a point.
    """

    kind: Literal["point", "interpolation"]
    parameters: Mapping[str, np.ndarray]
    interpolated: Interpolated | None = None


@dataclass(frozen=True, eq=False)
class Origin:
    """What the tuned training can be done again from.

    Attributes:
        recipe: the resolved recipe, the text of its recipe.yaml.
        meta_parameters: η, arrays by the dotted names of its leaves: what was tuned, to the bit.
        record: some numbers of trainings at these meta-parameters, and the machine that they were
            done on; plain JSON values; None where nothing was trained here or the run isn't over.
    """

    recipe: str
    meta_parameters: Mapping[str, np.ndarray]
    record: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Artefact:
    """Tuned schedules with their provenance.

    Attributes:
        horizon_steps: updates of the training that was tuned.
        horizon_tokens: tokens of the training that was tuned.
        learning_rates: for every parameter.
        mixture: shares of the domains, if they were tuned.
        loss_weights: weights of the domains or of the classes of tokens in the loss, if they were
            tuned.
        optimizer: that the rates were tuned for.
        provenance: versions and hashes of what it was made from; plain JSON values.
        result: what the tuning gained; plain JSON values.
        certificate: what `metatune check` found of the recipe's hypergradients; plain JSON values;
            None where it wasn't asked.
        origin: what it can be trained again from; None where that wasn't kept.
        loss_terms: what the loss has beside the next token's term; None for nothing.
        initialisation: what the training starts from, if that was tuned.
        learned_update: networks that correct the optimizer's step, if they were tuned.
        rater: weighs the sequences of each batch, if one was tuned.
    """

    horizon_steps: int
    horizon_tokens: int
    learning_rates: LearningRates
    mixture: Mixture | None
    loss_weights: LossWeights | ClassWeights | None
    optimizer: Optimizer
    provenance: Mapping[str, Any]
    result: Mapping[str, Any]
    certificate: Mapping[str, Any] | None = None
    origin: Origin | None = None
    loss_terms: LossTerms | None = None
    initialisation: Initialisation | None = None
    learned_update: LearnedUpdate | None = None
    rater: Rater | None = None

    def learning_rate(self, name: str, step: int, total: int) -> float | np.ndarray:
        """The rate of parameter `name` at update `step` (from 0) of a training of `total` updates.

        Returns:
            A number; where rates were tuned within parameters, a float64 array of the tensor's
            rank that broadcasts against it.

        Raises:
            ArtefactError: no such parameter, a negative step or a total below 1.
        """
        rates = self.learning_rates
        if name not in rates.parameters:
            close = difflib.get_close_matches(name, rates.parameters, n=3)
            near = f"the nearest are {', '.join(close)}" if close else "none has a similar name"
            problem = f"not one of the {len(rates.parameters)} parameters"
            raise ArtefactError("artefact", [Fault("name", name, problem, near)])
        curve = rates.parameters[name]
        rate = float(value_at(rates.knots, curve, rates.interpolation, step, total))
        if rates.elements is None:
            return rate
        own, found = rates.elements, rates.elements.parameters[name]
        factors = value_at(own.knots, found, own.interpolation, step, total)
        return rate * factors.astype(np.float64)

    def rates_at(self, step: int, total: int) -> np.ndarray:
        """Rates [parameters] at update `step` (from 0) of `total`, in the order of the parameters.

        Raises:
            ArtefactError: a negative step or a total below 1, or rates within parameters.
        """
        rates = self.learning_rates
        if rates.elements is not None:
            problem = "rates were tuned within parameters, which have no single one"
            fault = Fault("learning_rates.elements", ABSENT, problem, "ask for `learning_rate`")
            raise ArtefactError("artefact", [fault])
        return value_at(rates.knots, self._table.T, rates.interpolation, step, total)

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """The rates of all parameters, [parameters, knots]."""
        return np.stack(list(self.learning_rates.parameters.values()))

    def mixture_at(self, step: int, total: int) -> dict[str, float]:
        """The share of each domain at update `step` (from 0) of `total`; they sum to one.

        Raises:
            ArtefactError: no mixture was tuned, a negative step or a total below 1.
        """
        row = _row_at("mixture", self.mixture, step, total)
        whole = sum(row.values())
        return {domain: share / whole for domain, share in row.items()}

    def optimizer_at(self, step: int, total: int) -> dict[str, Any]:
        """The settings of the optimizer at update `step` (from 0) of `total`.

        Where it was tuned, `weight_decay` is a number for each parameter that decays, by name.

        Raises:
            ArtefactError: a negative step or a total below 1.
        """
        settings, schedules = dict(self.optimizer.settings), self.optimizer.schedules
        if schedules is None:
            return settings

        def at(curve: np.ndarray) -> float:
            return float(value_at(schedules.knots, curve, schedules.interpolation, step, total))

        settings |= {name: at(curve) for name, curve in schedules.values.items()}
        if schedules.weight_decay is not None:
            decay = {name: at(curve) for name, curve in schedules.weight_decay.items()}
            settings["weight_decay"] = decay
        return settings

    def loss_terms_at(self, step: int, total: int) -> dict[str, float]:
        """The coefficient of each term of the loss at update `step` (from 0) of `total`.

        Raises:
            ArtefactError: a negative step or a total below 1.
        """
        if (terms := self.loss_terms) is None:
            return {}
        return {
            name: float(value_at(terms.knots, curve, terms.interpolation, step, total))
            for name, curve in terms.values.items()
        }

    def loss_weights_at(self, step: int, total: int) -> dict[str, float]:
        """The loss weight of each domain or class at update `step` (from 0) of `total`.

        Those of domains average one, those of classes average one over the training tokens.

        Raises:
            ArtefactError: no loss weights were tuned, a negative step or a total below 1.
        """
        row = _row_at("loss_weights", self.loss_weights, step, total)
        if isinstance(self.loss_weights, ClassWeights):
            mean = float(self.loss_weights.shares @ list(row.values()))
        else:
            mean = sum(row.values()) / len(row)
        return {name: weight / mean for name, weight in row.items()}


def _row_at(
    field: str, schedule: Mixture | LossWeights | ClassWeights | None, step: int, total: int
) -> dict[str, float]:
    if schedule is None:
        cure = f"tune it: `tune: {{{field}: ...}}` in the recipe"
        raise ArtefactError("artefact", [Fault(field, None, "the artefact holds none", cure)])
    row = value_at(schedule.knots, schedule.weights, schedule.interpolation, step, total)
    return dict(zip(schedule.columns, row.tolist(), strict=True))


def value_at(
    knots: Sequence[float], values: np.ndarray, interpolation: Interpolation, step: int, total: int
) -> np.ndarray:
    """The value of a schedule at update `step` (from 0) of a training of `total` updates.

    `constant`: the value of the last knot that is at or before step / total. `linear`: on the
    line between the two knots around step / total. After the last knot its value stays.

    Args:
        knots: fractions of training, the first 0, increasing.
        values: [knots, ...].
        interpolation: see above.
        step: 0 is the first update.
        total: updates of the training.

    Returns:
        The value, shaped like one of `values`.

    Raises:
        ArtefactError: a negative step or a total below 1.
    """
    if step < 0:
        fault = Fault("step", step, "steps count from 0, the first update", "give 0 or above")
        raise ArtefactError("artefact", [fault])
    if total < 1:
        problem = "a training has at least one update"
        raise ArtefactError("artefact", [Fault("total", total, problem, "give 1 or above")])
    before = int(np.searchsorted(knots, (step + STEP_TOLERANCE) / total, side="right")) - 1
    if interpolation == "constant" or before == len(knots) - 1:
        return values[before]
    span = knots[before + 1] - knots[before]
    # Of NumPy's own type, so that values in float32 are interpolated in float64.
    along = np.float64(max(0.0, step / total - knots[before]) / span)
    return (1 - along) * values[before] + along * values[before + 1]
