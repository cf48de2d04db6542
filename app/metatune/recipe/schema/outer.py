"""What a recipe says of the outer problem: objective, steps, optimizer, validation, phases."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from metatune.recipe.rules import (
    AT_LEAST_ONE,
    AT_LEAST_TWO,
    EACH_POSITIVE,
    FRACTION,
    MORE_THAN_ONE,
    NOT_EMPTY,
    NOT_NEGATIVE,
    ONE_OR_MORE,
    PARTS,
    POSITIVE,
    SIZES,
    ruled,
)
from metatune.recipe.schema.estimators import EstimatorSpec, MixFlowSpec


@dataclass(frozen=True)
class AdamSpec:
    """Adam on the meta-parameters, as `optax.adam`, after clipping.

    Attributes:
        learning_rate: in units of log rate and of logits.
        b1: decay of the mean of hypergradients.
        b2: decay of the mean of their squares.
        per_tunable: learning rates of their own, by entry of `tune`.
    """

    kind: Literal["adam"] = "adam"
    learning_rate: float = ruled(0.1, POSITIVE)
    b1: float = ruled(0.9, FRACTION)
    b2: float = ruled(0.99, FRACTION)
    per_tunable: Mapping[str, float] | None = None


@dataclass(frozen=True)
class DescentSpec:
    """Gradient descent on the meta-parameters with heavy-ball momentum, as `optax.sgd`.

    Attributes:
        learning_rate: in units of log rate and of logits, per unit of the hypergradient.
        momentum: decay of the sum of hypergradients that η moves by.
        per_tunable: learning rates of their own, by entry of `tune`.
    """

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = ruled(0.1, POSITIVE)
    momentum: float = ruled(0.9, FRACTION)
    per_tunable: Mapping[str, float] | None = None


@dataclass(frozen=True)
class SignSpec:
    """Steps by the sign of the hypergradient; a step halves when its sign flips (FDS, 2021).

    Clipping changes no sign, and nothing here.

    Attributes:
        learning_rate: first step size of each meta-parameter, in units of log rate and of logits.
        tolerance: converged when every step size is below it, of all meta-parameters that ever
            moved; null for never. These units are relative ones: 0.05 is 5 % of a learning rate
            or of a loss weight, and of the odds of a share.
        per_tunable: first step sizes of their own, by entry of `tune`.
    """

    kind: Literal["sign"] = "sign"
    learning_rate: float = ruled(0.2, POSITIVE)
    tolerance: float | None = ruled(0.05, POSITIVE)
    per_tunable: Mapping[str, float] | None = None


@dataclass(frozen=True)
class FullSpec:
    """Differentiates through the whole training, from step 0 to its end: exact.

    Attributes:
        horizons: inner steps of the trainings that are differentiated: of the first outer step of
            a phase, of the second, and so on, the last number staying. Schedules and windows are
            stretched onto them as fractions of training; validation and test train for all of
            `inner.steps`. Null for `inner.steps` always.
        fractions: the same as parts of `inner.steps`, rounded up, and further up where a window of
            what is tuned would have no step; either these or `horizons`.
    """

    kind: Literal["full"] = "full"
    horizons: tuple[int, ...] | None = None
    fractions: tuple[float, ...] | None = ruled(None, PARTS)


@dataclass(frozen=True)
class TruncatedSpec:
    """Differentiates through the last `window` inner steps; those before are run, no more.

    What a hyperparameter did earlier is left out: schedules of earlier windows stay as they are.

    Attributes:
        window: inner steps that are differentiated, the last of the training.
    """

    window: int = ruled(AT_LEAST_ONE)
    kind: Literal["truncated"] = "truncated"


@dataclass(frozen=True)
class OnlineSpec:
    """Tunes along a life-long training, `window` inner steps for each outer step.

    An outer step goes on from where the last one stopped, differentiates the held-out loss at the
    end of its window through the window alone, and moves the hyperparameters (Kemaev et al., 2025;
    Calian et al., DataRater, 2025).

    Attributes:
        window: inner steps of an outer step.
        lifetime: inner steps after which a new training begins; null for `inner.steps`.
    """

    window: int = ruled(AT_LEAST_ONE)
    kind: Literal["online"] = "online"
    lifetime: int | None = ruled(None, AT_LEAST_ONE)


@dataclass(frozen=True)
class PopulationSpec:
    """Several inner trainings for each hypergradient, each with a seed of its own.

    All take the same held-out text. Validation and test are as without (Calian et al., DataRater,
    2025).

    Attributes:
        members: how many trainings, M.
        stagger: of `unroll: online`, begin at other ages, member m at m/M of a lifetime, rounded
            down to windows, and begin anew one by one; false for all at a time. Members are
            trained to their ages first, at the meta-parameters of then.
        adam: own, each member's hypergradient has an outer optimizer's state of its own (moments,
            or step sizes, of whichever kind it is) and is clipped by itself, and what the
            optimizers make of them is averaged; shared, the hypergradients are averaged first.
        vmap: all members in one program, of M times the memory, spread over as many of the
            machine's devices as divide them, or cut over `devices.members`; false for one after the
            other.
        gate: standard errors over the members, below which a value doesn't move in an outer step;
            above, its step is shrunk by `1 - (gate/t)²`, t of its hypergradient. Values of a
            window that don't move by themselves move together, if their mean tells where; not
            those of shares or weights. Null for the optimizer's own steps.
    """

    members: int = ruled(AT_LEAST_TWO)
    stagger: bool = True
    adam: Literal["own", "shared"] = "own"
    vmap: bool = True
    gate: float | None = ruled(None, POSITIVE)


@dataclass(frozen=True)
class RobustSpec:
    """Tuning for transfer: the outer objective is the mean over trainings of several sizes.

    At each size the same meta-parameters, carried there by the rule as the artefact will be, are
    trained, differentiated and validated; what is followed is the mean of the hypergradients, and
    the best point is the best in the mean. So what is tuned is what carries over. One size after
    the other is on the device, all on the same data; the result is measured at the recipe's own.

    Attributes:
        widths: times the recipe's features and heads.
        depths: times its blocks; each with each of the widths.
        seeds: trainings of each size for a hypergradient, the same seeds at all.
        rule: how rates, weight decay, eps and fresh numbers follow the sizes.
    """

    widths: tuple[int, ...] = ruled((1, 2), SIZES)
    depths: tuple[int, ...] = ruled((1,), SIZES)
    seeds: int = ruled(1, AT_LEAST_ONE)
    rule: Literal["none", "mup", "completep", "complete_d_p"] = "complete_d_p"


OptimizerSpec = AdamSpec | DescentSpec | SignSpec
UnrollSpec = FullSpec | TruncatedSpec | OnlineSpec

Class = Literal["text", "prompt", "completion", "system", "tool"]
"""What part of a document a token is of; all tokens of a plain text are text."""


Measure = Literal["loss", "accuracy", "exact_match"]
"""What is measured on held-out text: the loss, or the negative of the share of tokens that are
predicted, or of sequences whose tokens all are."""


Average = Literal["tokens", "sequences"]
"""What the mean of a domain's held-out loss is over."""


@dataclass(frozen=True)
class TrajectorySpec:
    """An objective at several points of a training, for models that have to be good early.

    What is differentiated is the mean of the losses after 1/K, 2/K, ... and all of the inner steps
    of an outer step. Validation and test are of the loss at the end.

    Attributes:
        points: how many, K.
        exponent: the weight of a point is proportional to its fraction of the training to this
            power: 0 for uniform weights, 1 for late points, -1 for early ones.
    """

    points: int = ruled(AT_LEAST_TWO)
    exponent: float = 0.0


@dataclass(frozen=True)
class ObjectiveSpec:
    """What is minimised on held-out text: what is differentiated, validated and tested.

    Attributes:
        measure: the loss, or what has no derivative: the negative of the share of tokens that are
            predicted, or of sequences whose tokens all are. These are followed by the estimators
            zeroth_order and persistent_es.
        sequences: held-out sequences per outer step.
        micro_batch: of which at most so many at a time are on the device; also where the outer
            and test splits are measured.
        classes: classes of the tokens that count, there too; sequences without any are left out.
            Null for all.
        average: what a domain's loss, or accuracy, is the mean over: all of its tokens that count,
            in all of its sequences together, as of other evaluations; or its sequences, of the mean
            of each, so that a token of a short answer weighs more. Exact match is of sequences.
        deviation: penalty for leaving the recipe's defaults, in nats of loss for a mean over each
            tunable's meta-parameters of `(η - η₀)²` of one, in units of log rate and of logits.
            Validation and test are without it.
        worst_case: temperature T, in nats, of a smooth maximum over the target's domains, in place
            of the mean of their losses: `T log Σ_d target_d exp(l_d / T)`, from the mean at a large
            T to the largest loss at a small one. It is that of all held-out sequences together, and
            is what validation and test measure, too. Null for the mean.
        trajectory: average the objective along the training; null for its end alone.
    """

    measure: Measure = "loss"
    sequences: int = ruled(128, AT_LEAST_ONE)
    micro_batch: int = ruled(128, AT_LEAST_ONE)
    classes: tuple[Class, ...] | None = ruled(None, NOT_EMPTY)
    average: Average = "tokens"
    deviation: float = ruled(0.0, NOT_NEGATIVE)
    worst_case: float | None = ruled(None, POSITIVE)
    trajectory: TrajectorySpec | None = None


@dataclass(frozen=True)
class FreshSpec:
    """What is drawn anew at every outer step; what isn't, stays that of the first.

    Attributes:
        initialisation: the parameters that trainings start from.
        data: the batches, and the held-out text of the objective.
    """

    initialisation: bool = True
    data: bool = True


@dataclass(frozen=True)
class ValidationSpec:
    """How the best outer step is chosen: whole trainings, true sampling, on the validation split.

    Attributes:
        seeds: trainings for a validation, the same seeds each time.
        sequences: held-out sequences that each is measured on.
        every: outer steps from one validation to the next; there is one at the first and the last
            of a phase, too.
    """

    seeds: int = ruled(2, AT_LEAST_ONE)
    sequences: int = ruled(256, AT_LEAST_ONE)
    every: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class FinalTestSpec:
    """How the result is measured: whole trainings, true sampling, on the test split, once.

    Attributes:
        seeds: pairs of trainings (recipe's default, tuned) on seeds never used before.
        sequences: held-out sequences that each is measured on.
    """

    seeds: int = ruled(5, AT_LEAST_ONE)
    sequences: int = ruled(512, AT_LEAST_ONE)


@dataclass(frozen=True)
class PhaseSpec:
    """A stretch of the search with ways of its own; what it leaves out is that of `outer`.

    It goes on from the meta-parameters that the one before it ended with, best or not. The state
    of the optimizer is handed on too where the kind is the same; of `sign` only where the step
    sizes begin alike and haven't converged. An online training begins anew.

    Attributes:
        steps: hypergradients at most.
        estimator: how the hypergradient is obtained.
        unroll: through which part of the training.
        optimizer: how it is followed.
        reset: begin with a fresh state of the optimizer in any case.
    """

    steps: int = ruled(AT_LEAST_ONE)
    estimator: EstimatorSpec | None = None
    unroll: UnrollSpec | None = None
    optimizer: OptimizerSpec | None = None
    reset: bool = False


@dataclass(frozen=True)
class SignalSpec:
    """What is followed where the hypergradient of a window is noise.

    Where training is chaotic, the derivative in the state grows on its way back, and the exact
    hypergradient of the windows that it comes to last says nothing. Along one direction of such a
    window, all rates or the share of a domain, it is then blended with differences of whole
    trainings (Parmas et al., 2018; Metz et al., 2019), each weighted by what the growth tells of
    its noise, or, in a population of eight or more, by how much it varies over the members. Slopes
    are averaged over outer steps. From ten times the limit of growth on, a window that was never
    measured stays, and where the noise of slopes is known, what the optimizer makes of them is
    multiplied by `1 - (error / slope)²` (James & Stein, 1961).

    Where outer steps enough are left of a horizon, a few trainings say first which hypergradient
    has signal there, exact, with a cap on the adjoint, or begun anew, and of how many trainings;
    differences are left to the windows that it doesn't tell (of mixflow without damping of its own,
    full unrolls, no population, no other sizes).

    Attributes:
        growth: a window's hypergradient is taken for dominated by growth from where the norm of
            the adjoint behind it is so many times the least that it was later in training.
        pairs: windows of tunables whose differences are measured in an outer step at most, those
            first whose last ones are oldest; two trainings for a difference.
        seeds: trainings of which there are differences where such a window is first measured, two
            or more for their noise to be known; later as many, up to this, as make its slope clear.
            Of a population its members are; one where no training differs from the next (`fresh`).
        step: of the differences, in units of log rate and of logits.
        members: trainings that hypergradients are judged by, three or more; of fewer none is
            chosen. Fewer, down to three, where half of what the cost allows isn't enough for them.
        cost: times the hypergradients of the outer steps that are left of a horizon that
            measuring, the trainings that were chosen, and differences from then on may come to in
            all; 1 chooses none.
    """

    growth: float = ruled(10.0, MORE_THAN_ONE)
    pairs: int = ruled(2, AT_LEAST_ONE)
    seeds: int = ruled(1, AT_LEAST_ONE)
    step: float = ruled(0.3, POSITIVE)
    members: int = ruled(4, AT_LEAST_ONE)
    cost: float = ruled(2.0, ONE_OR_MORE)


@dataclass(frozen=True)
class OuterSpec:
    """The search over the meta-parameters: exactly one of `steps` and `phases`.

    Attributes:
        steps: hypergradients at most.
        phases: one after the other, each with its own number of steps; null for a single one.
        estimator: how the hypergradient is obtained.
        unroll: through which part of the training.
        optimizer: how it is followed.
        clip_norm: largest global norm of a hypergradient before the optimizer sees it; null for no
            clipping.
        clip: largest norm of the hypergradient of each tunable, one for all or by entry of `tune`,
            before that of all together is clipped; null for none.
        ema: decay of an average of the meta-parameters of all outer steps, which is validated
            beside the latest: the better of the two may become the best; null for no average.
        patience: a phase ends after so many of its outer steps without a new best; null for never.
        objective: what is differentiated.
        fresh: what is drawn anew at every outer step.
        population: several trainings for each hypergradient; null for one.
        robust: trainings of several sizes for each hypergradient, so that what is tuned carries
            over; null for the recipe's own size alone.
        signal: what is done about noise: auto, as a section without any fields has it; off,
            nothing: hypergradients are followed as they are. Windows that growth dominates are of
            estimators that go back through the training, not of online unrolls. With any estimator
            outer steps that validation contradicts, by two standard errors over its seeds, are
            taken back, and those that follow halved; not of online unrolls, nor with ema or shared
            rates.
        validation: how the best outer step is chosen, over all phases.
        test: how the result is measured.
    """

    steps: int | None = ruled(None, AT_LEAST_ONE)
    phases: tuple[PhaseSpec, ...] | None = None
    estimator: EstimatorSpec = field(default_factory=MixFlowSpec)
    unroll: UnrollSpec = field(default_factory=FullSpec)
    optimizer: OptimizerSpec = field(default_factory=AdamSpec)
    clip_norm: float | None = ruled(1.0, POSITIVE)
    clip: float | Mapping[str, float] | None = ruled(None, EACH_POSITIVE)
    ema: float | None = ruled(None, FRACTION)
    patience: int | None = ruled(None, AT_LEAST_ONE)
    objective: ObjectiveSpec = field(default_factory=ObjectiveSpec)
    fresh: FreshSpec = field(default_factory=FreshSpec)
    population: PopulationSpec | None = None
    robust: RobustSpec | None = None
    signal: SignalSpec | Literal["auto", "off"] = "auto"
    validation: ValidationSpec = field(default_factory=ValidationSpec)
    test: FinalTestSpec = field(default_factory=FinalTestSpec)
