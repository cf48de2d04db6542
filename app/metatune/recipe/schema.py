"""The shape of a recipe: frozen dataclasses with the defaults of every choice.

A union of dataclasses is told apart by its `kind`. Rules on single values stand in the metadata of
a field (`rule`), rules between fields in `checks.py`. A recipe that was read is complete: writing
it out again gives a valid recipe with every default spelled out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from metatune.recipe.rules import (
    AT_LEAST_ONE,
    AT_LEAST_ONE_OR_NAMED,
    AT_LEAST_TWO,
    CHUNK,
    COMMAND,
    FRACTION,
    INNER_FRACTION,
    NOT_EMPTY,
    NOT_NEGATIVE,
    POSITIVE,
    ruled,
)

Chunk = int | Literal["auto"] | None
"""Rows of a large array that exist at a time; null for all of them, `auto` by its size."""


@dataclass(frozen=True)
class Model:
    """The language model that the inner training trains: exactly one of the first two.

    Attributes:
        config: fields of a Hugging Face `config.json`; `model_type` names the family. Every
            training starts from fresh parameters.
        pretrained: folder of a Hugging Face model, or its id on the hub; every training starts
            from its weights.
        revision: branch, tag or commit of a model on the hub.
        dtype: compute type; parameters are always float32. In bfloat16, hypergradients of learning
            rates are as good as its gradients; those of the mixture and of loss weights ask for a
            larger eps_root of AdamW, which `metatune fit` warns of.
        remat: recompute each block in the backward pass: less memory, up to a third more time for
            a plain gradient, hardly more for a hypergradient.
        attention_chunk: queries whose attention scores exist at a time; recomputed in the backward
            pass. By default all, unless those of a block exceed 64 MiB, then as many as fit.
        loss_chunk: tokens whose logits exist at a time; likewise.
    """

    config: Mapping[str, Any] | None = None
    pretrained: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = True
    attention_chunk: Chunk = ruled("auto", CHUNK)
    loss_chunk: Chunk = ruled("auto", CHUNK)


Files = str | tuple[str, ...]
"""A path or a glob (`**` for folders too), or several; relative to the working directory."""


@dataclass(frozen=True)
class Source:
    """Where a domain's documents come from: exactly one of the first seven.

    Files may be compressed (.gz, .bz2, .xz, .zst). Text files are cut into documents of a few
    thousand bytes; all others hold records, each of which is a document, read from a column of
    text, from a prompt and its completion, or from the messages of a chat.

    Attributes:
        shipped: name of a corpus that comes with metatune.
        path: text files.
        jsonl: files with a JSON object on each line.
        parquet: Parquet files.
        csv: comma-separated files whose first line names the columns.
        dataset: a Hugging Face dataset: an id on the hub, or a folder.
        saved: a folder that `datasets.Dataset.save_to_disk` wrote.
        config: configuration of `dataset`.
        split: split of `dataset` or `saved`; `train` by default.
        revision: branch, tag or commit of `dataset`.
        streaming: read `dataset` as it comes over the network, up to `max_tokens`, and keep
            nothing but the tokens. They are kept under what the recipe says: name a commit as
            `revision`, or later changes of the dataset aren't seen.
        column: column of the text; `text` by default.
        prompt: column of the prompts, whose tokens are of class prompt; with `completion`.
        completion: column of the completions.
        messages: column of lists of {role, content}, rendered by the tokenizer's chat template;
            the assistant's turns are of class completion.
        max_tokens: reading stops at the document that reaches so many tokens; null for no limit.
    """

    shipped: str | None = None
    path: Files | None = None
    jsonl: Files | None = None
    parquet: Files | None = None
    csv: Files | None = None
    dataset: str | None = None
    saved: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    streaming: bool | None = None
    column: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    max_tokens: int | None = ruled(None, AT_LEAST_ONE)


@dataclass(frozen=True)
class HeldOut:
    """How much of each domain is kept from the inner training.

    Attributes:
        outer: share of the documents for the objective and for the choice of the best.
        report: share of the documents for the result, touched once.
    """

    outer: float = ruled(0.1, INNER_FRACTION)
    report: float = ruled(0.1, INNER_FRACTION)


@dataclass(frozen=True)
class Packing:
    """How documents, each with an end-of-sequence token behind it, fill the sequences.

    Attributes:
        cross_documents: a token may attend to documents before its own in the same sequence, and
            the first token of a document is predicted from the one before. Otherwise neither.
        last_window: the tokens at the end of a split that fill no whole sequence: left out, or
            filled up with padding, which is no part of the loss.
    """

    cross_documents: bool = True
    last_window: Literal["drop", "pad"] = "drop"


@dataclass(frozen=True)
class Data:
    """The text, and how it is cut into batches.

    Attributes:
        domains: sources by name; the order is the order of the mixture's shares.
        target: weights over domains of the held-out loss; normalised to sum to one.
        sequence_length: tokens per sequence; two at least: one to read and one to predict.
        batch_size: sequences per inner step.
        tokenizer: `bytes` (vocabulary 256 and three specials), or a fast Hugging Face tokenizer: a
            folder, or an id on the hub.
        held_out: shares of the documents kept from the inner training.
        packing: how documents fill the sequences.
        invalid_utf8: what happens to text that isn't UTF-8: it is refused, or its invalid bytes
            are replaced by U+FFFD and counted.
    """

    domains: Mapping[str, Source]
    target: Mapping[str, float]
    sequence_length: int = ruled(AT_LEAST_TWO)
    batch_size: int = ruled(AT_LEAST_ONE)
    tokenizer: str = "bytes"
    held_out: HeldOut = field(default_factory=HeldOut)
    packing: Packing = field(default_factory=Packing)
    invalid_utf8: Literal["refuse", "replace"] = "refuse"


@dataclass(frozen=True)
class Constant:
    """A base rate that stays, after a linear warmup over `warmup` (fraction of inner steps)."""

    kind: Literal["constant"] = "constant"
    warmup: float = ruled(0.0, FRACTION)


@dataclass(frozen=True)
class Cosine:
    """A linear warmup, then half a cosine down to `final` (fraction of the peak rate)."""

    kind: Literal["cosine"] = "cosine"
    warmup: float = ruled(0.05, FRACTION)
    final: float = ruled(0.1, FRACTION)


@dataclass(frozen=True)
class WarmupStableDecay:
    """Warmup, plateau, then a linear decay over the last `decay` (fraction of inner steps)."""

    kind: Literal["wsd"] = "wsd"
    warmup: float = ruled(0.05, FRACTION)
    decay: float = ruled(0.2, FRACTION)
    final: float = ruled(0.1, FRACTION)


Schedule = Constant | Cosine | WarmupStableDecay


@dataclass(frozen=True)
class AdamW:
    """AdamW (Loshchilov & Hutter, 2019), as `optax.adamw`.

    Attributes:
        learning_rate: peak of the base schedule.
        schedule: the base schedule, which a tuned learning rate multiplies.
        weight_decay: decoupled decay, multiplied by the learning rate.
        decay: what decays: matrices only, or every parameter.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        eps_root: added under the root; must be positive, or the hypergradient of a parameter
            whose gradient is zero is not a number.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    learning_rate: float = ruled(POSITIVE)
    kind: Literal["adamw"] = "adamw"
    schedule: Schedule = field(default_factory=Cosine)
    weight_decay: float = ruled(0.1, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    b1: float = ruled(0.9, FRACTION)
    b2: float = ruled(0.95, FRACTION)
    eps: float = ruled(1e-8, NOT_NEGATIVE)
    eps_root: float = ruled(1e-12, POSITIVE)
    clip_norm: float | None = ruled(1.0, POSITIVE)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, as `optax.sgd` after `add_decayed_weights`.

    Attributes:
        learning_rate: peak of the base schedule.
        schedule: the base schedule, which a tuned learning rate multiplies.
        momentum: decay of the trace of gradients.
        nesterov: look ahead along the momentum.
        weight_decay: decay added to the gradient (after clipping, before momentum, as PyTorch).
        decay: what decays: matrices only, or every parameter.
        clip_norm: largest global norm of the gradient; null for no clipping.
    """

    learning_rate: float = ruled(POSITIVE)
    kind: Literal["sgd"] = "sgd"
    schedule: Schedule = field(default_factory=Cosine)
    momentum: float = ruled(0.9, FRACTION)
    nesterov: bool = False
    weight_decay: float = ruled(0.0, NOT_NEGATIVE)
    decay: Literal["matrices", "all"] = "matrices"
    clip_norm: float | None = ruled(1.0, POSITIVE)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al., 2022): `W + (alpha / rank) B A`, W frozen, A and B trained.

    Attributes:
        targets: regular expressions, searched for in checkpoint names: the matrices of the blocks
            that get an adapter.
        rank: of B A.
        alpha: the adapters' weight, over the rank.
    """

    targets: tuple[str, ...]
    rank: int = ruled(8, AT_LEAST_ONE)
    alpha: float = ruled(16.0, POSITIVE)


@dataclass(frozen=True)
class Inner:
    """The training that is tuned: `steps` updates of `optimizer`.

    Attributes:
        optimizer: what turns gradients into updates.
        steps: inner steps of a whole training, which the schedules run over.
        micro_batch: sequences of a batch that are computed at a time, their gradients summed: less
            memory, the same update to rounding; null for all. Must divide data.batch_size.
        train: regular expressions, searched for in checkpoint names: the parameters that are
            trained; all others are frozen, those of a fresh model as they are drawn once from the
            recipe's seed. Null for all, or with lora for the adapters alone.
        lora: adapters beside frozen matrices; null for none.
    """

    optimizer: AdamW | SGD
    steps: int = ruled(AT_LEAST_ONE)
    micro_batch: int | None = ruled(None, AT_LEAST_ONE)
    train: tuple[str, ...] | None = None
    lora: Lora | None = None


@dataclass(frozen=True)
class LearningRates:
    """Learning rates as multipliers of the base schedule, one for each group and window.

    Attributes:
        per: how parameters share a rate: all one, by layer, each tensor its own, or groups by
            regular expression on checkpoint names (a list, or names with expressions; the first
            that is found in a name takes it, parameters of no group keep the base rate).
        windows: stretches of the training with one value each, of equal length.
    """

    per: Literal["global", "layer", "tensor"] | tuple[str, ...] | Mapping[str, str] = "tensor"
    windows: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class Mixture:
    """Shares of the domains in the training batches, one simplex for each window.

    Attributes:
        windows: stretches of the training with one mixture each, of equal length.
        floor: smallest share of any domain.
        initial: shares to start from, by domain; uniform by default.
    """

    windows: int = ruled(1, AT_LEAST_ONE)
    floor: float = ruled(0.0, FRACTION)
    initial: Mapping[str, float] | None = None


@dataclass(frozen=True)
class LossWeights:
    """Weights in the training loss, normalised so that they can't stand in for a learning rate.

    Attributes:
        per: what a weight belongs to: a domain, whose weights average one over the domains; or a
            class of tokens (text, prompt, completion, system, tool) that occurs in the training
            data, whose weights average one over its tokens at the mixture that the recipe starts
            with. A sequence's loss is Σ w l / n over its n predicted tokens.
        windows: stretches of the training with one set of weights each, of equal length.
        initial: weights to start from, by domain or class, normalised likewise; one for those that
            aren't named.
    """

    per: Literal["domain", "class"] = "domain"
    windows: int = ruled(1, AT_LEAST_ONE)
    initial: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Tune:
    """What is tuned: at least one."""

    learning_rates: LearningRates | None = None
    mixture: Mixture | None = None
    loss_weights: LossWeights | None = None


@dataclass(frozen=True)
class Checkpoints:
    """What is kept of the inner training between the forward and the backward sweep.

    Attributes:
        keep: which states between segments: all; sqrt, each √n-th of n segments; a number k, each
            k-th; recursive, at most `slots` at a time; or auto, whatever recomputes least within
            the budget. What isn't kept is recomputed: the same hypergradient, bit for bit, in less
            memory and more time.
        slots: states kept at a time besides the first, of `keep: recursive` only.
        store: where they are kept: device, host (memory) or disk (the run folder).
        budget_bytes: how much may lie there at a time. Null for no limit but that of the place; of
            `keep: auto` for half of what is free there.
    """

    keep: Literal["all", "sqrt", "recursive", "auto"] | int = ruled("auto", AT_LEAST_ONE_OR_NAMED)
    slots: int = ruled(8, AT_LEAST_ONE)
    store: Literal["device", "host", "disk"] = "device"
    budget_bytes: int | None = ruled(None, AT_LEAST_ONE)


@dataclass(frozen=True)
class MixFlow:
    """MixFlow-MG: exact, forward-over-reverse (Kemaev et al., 2025).

    Attributes:
        segment: inner steps per compiled program, and between two kept states.
        mixed_mode: take second derivatives by forward over reverse; false takes them by reverse
            over reverse, in more memory and time, for comparison.
        save_gradients: keep the inner gradients of the forward sweep for the backward sweep: about
            a fifth less time for one copy of the parameters per inner step.
        gradient_dtype: what the inner gradients are rounded to, in the training that is
            differentiated too; bfloat16 halves what saving them takes. Judging and reporting train
            without rounding.
        checkpoints: what is kept between the sweeps, and where.
    """

    kind: Literal["mixflow"] = "mixflow"
    segment: int = ruled(16, AT_LEAST_ONE)
    mixed_mode: bool = True
    save_gradients: bool = True
    gradient_dtype: Literal["float32", "bfloat16"] = "float32"
    checkpoints: Checkpoints = field(default_factory=Checkpoints)


@dataclass(frozen=True)
class Reverse:
    """Reverse-over-reverse through the unrolled steps: the standard way, kept as the oracle.

    Attributes:
        segment: inner steps per compiled program, and between two kept states.
        remat: recompute each inner step in the backward sweep.
        checkpoints: what is kept between the sweeps, and where.
    """

    kind: Literal["reverse"] = "reverse"
    segment: int = ruled(16, AT_LEAST_ONE)
    remat: bool = True
    checkpoints: Checkpoints = field(default_factory=Checkpoints)


@dataclass(frozen=True)
class Forward:
    """FDS: exact, forward-mode along every meta-parameter (Micaelli & Storkey, 2021).

    Keeps no states: memory grows with the number of meta-parameters, not with the steps. A
    meta-parameter costs nothing before its window begins.

    Attributes:
        segment: inner steps per compiled program.
        chunk: meta-parameters at a time, each chunk through a training of its own; null for all.
        clip_tangents: largest global norm of the tangent of an inner gradient, along each
            meta-parameter; null, for no clipping, is exact.
        budget_bytes: what the tangents may take, a state of floats for each meta-parameter; null
            for what is free on the device.
    """

    kind: Literal["forward"] = "forward"
    segment: int = ruled(16, AT_LEAST_ONE)
    chunk: int | None = ruled(None, AT_LEAST_ONE)
    clip_tangents: float | None = ruled(None, POSITIVE)
    budget_bytes: int | None = ruled(None, AT_LEAST_ONE)


@dataclass(frozen=True)
class ForwardGradient:
    """(FG)²U: unbiased, forward-mode along random directions (Shen et al., 2024).

    Keeps no states: memory grows with the number of directions at a time alone.

    Attributes:
        directions: random directions of each hypergradient; its relative error is about the root
            of meta-parameters / directions.
        segment: inner steps per compiled program.
        distribution: of the directions; orthogonal has the least error, and takes at most as many
            as meta-parameters.
        chunk: directions at a time, each chunk through a training of its own; null for all.
        budget_bytes: what the tangents may take, a state of floats for each direction at a time;
            null for what is free on the device.
    """

    kind: Literal["forward_gradient"] = "forward_gradient"
    directions: int = ruled(8, AT_LEAST_ONE)
    segment: int = ruled(16, AT_LEAST_ONE)
    distribution: Literal["rademacher", "gaussian", "orthogonal"] = "rademacher"
    chunk: int | None = ruled(None, AT_LEAST_ONE)
    budget_bytes: int | None = ruled(None, AT_LEAST_ONE)


Measure = Literal["loss", "accuracy", "exact_match"]
"""What is measured on held-out text: the loss, or the negative of the share of tokens that are
predicted, or of sequences whose tokens all are."""


@dataclass(frozen=True)
class ZerothOrder:
    """Central differences of whole trainings along random directions (Spall, 1992).

    For objectives that can't be differentiated; biased by the square of `step`.

    Attributes:
        objective: what is minimised, and judged and reported too.
        directions: random directions of each hypergradient; two trainings each.
        step: how far to either side of the meta-parameters, in units of log rate and of logits.
        segment: inner steps per compiled program.
        distribution: of the directions, as for `forward_gradient`.
        chunk: directions at a time; the memory is that of twice as many trainings.
    """

    kind: Literal["zeroth_order"] = "zeroth_order"
    objective: Measure = "loss"
    directions: int = ruled(8, AT_LEAST_ONE)
    step: float = ruled(1e-2, POSITIVE)
    segment: int = ruled(16, AT_LEAST_ONE)
    distribution: Literal["rademacher", "gaussian", "orthogonal"] = "rademacher"
    chunk: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class External:
    """Central differences of trainings that a command does elsewhere (Spall, 1992).

    The command is run without a shell. On its standard input it gets the hyperparameters: the
    JSON of a `tuned.json`, with `seed` and `steps` beside; the file named by the environment
    variable METATUNE_TUNED is that `tuned.json` alone. The last line that it prints is the loss to
    minimise. The same command chooses the best and measures the result: nothing is trained here,
    and what the recipe says of model, data and inner training names and bounds what is tuned.

    Attributes:
        command: program and arguments, a list, or text that is split as a shell splits it.
        directions: random directions of each hypergradient; two trainings each, on either side of
            the meta-parameters, with the same seed.
        step: how far to either side of the meta-parameters, in units of log rate and of logits.
        distribution: of the directions, as for `forward_gradient`.
        timeout_seconds: after which a command is killed, and counts as failed; null for never.
        parallel: commands at a time.
    """

    command: str | tuple[str, ...] = ruled(COMMAND)
    kind: Literal["external"] = "external"
    directions: int = ruled(8, AT_LEAST_ONE)
    step: float = ruled(0.1, POSITIVE)
    distribution: Literal["rademacher", "gaussian", "orthogonal"] = "rademacher"
    timeout_seconds: float | None = ruled(None, POSITIVE)
    parallel: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class Auto:
    """Whichever is the fastest of those that fit the device; the run folder's recipe names it.

    Attributes:
        objective: what is minimised; anything but the loss takes `zeroth_order`.
        segment: inner steps per compiled program, and between two kept states.
        checkpoints: of reverse mode, what is kept between the sweeps, and where.
    """

    kind: Literal["auto"] = "auto"
    objective: Measure = "loss"
    segment: int = ruled(16, AT_LEAST_ONE)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)


Estimator = MixFlow | Reverse | Forward | ForwardGradient | ZerothOrder | External | Auto


@dataclass(frozen=True)
class Adam:
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
class Sign:
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
class Full:
    """Differentiates through the whole training, from step 0 to its end: exact.

    Attributes:
        horizons: inner steps of the trainings that are differentiated: of the first outer step of
            a phase, of the second, and so on, the last number staying. Schedules and windows are
            stretched onto them as fractions of training; judging and reporting train for all of
            `inner.steps`. Null for `inner.steps` always.
    """

    kind: Literal["full"] = "full"
    horizons: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Truncated:
    """Differentiates through the last `window` inner steps; those before are run, no more.

    What a hyperparameter did earlier is left out: schedules of earlier windows stay as they are.
    """

    window: int = ruled(AT_LEAST_ONE)
    kind: Literal["truncated"] = "truncated"


@dataclass(frozen=True)
class Online:
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


Optimizer = Adam | Sign
Unroll = Full | Truncated | Online

Class = Literal["text", "prompt", "completion", "system", "tool"]
"""What part of a document a token is of; all tokens of a plain text are text."""


@dataclass(frozen=True)
class Objective:
    """The held-out loss that is differentiated.

    Attributes:
        sequences: held-out sequences per outer step.
        micro_batch: of which at most so many at a time are on the device; also where the outer
            and report splits are measured.
        classes: classes of the tokens that count, there too; sequences without any are left out.
            Null for all.
    """

    sequences: int = ruled(128, AT_LEAST_ONE)
    micro_batch: int = ruled(128, AT_LEAST_ONE)
    classes: tuple[Class, ...] | None = ruled(None, NOT_EMPTY)


@dataclass(frozen=True)
class Fresh:
    """What is drawn anew at every outer step; what isn't, stays that of the first."""

    initialisation: bool = True
    data: bool = True


@dataclass(frozen=True)
class Judge:
    """How the best outer step is chosen: whole trainings, true sampling, on the outer split.

    Attributes:
        seeds: trainings for a judgement, the same seeds each time.
        sequences: held-out sequences that each is measured on.
        every: outer steps from one judgement to the next; the first and the last of a phase are
            judged too.
    """

    seeds: int = ruled(2, AT_LEAST_ONE)
    sequences: int = ruled(256, AT_LEAST_ONE)
    every: int = ruled(1, AT_LEAST_ONE)


@dataclass(frozen=True)
class Report:
    """How the result is measured: whole trainings, true sampling, on the report split, once.

    Attributes:
        seeds: pairs of trainings (recipe's default, tuned) on seeds never used before.
        sequences: held-out sequences that each is measured on.
    """

    seeds: int = ruled(5, AT_LEAST_ONE)
    sequences: int = ruled(512, AT_LEAST_ONE)


@dataclass(frozen=True)
class Phase:
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
    estimator: Estimator | None = None
    unroll: Unroll | None = None
    optimizer: Optimizer | None = None
    reset: bool = False


@dataclass(frozen=True)
class Outer:
    """The search over the meta-parameters: exactly one of `steps` and `phases`.

    Attributes:
        steps: hypergradients at most.
        phases: one after the other, each with its own number of steps; null for a single one.
        estimator: how the hypergradient is obtained.
        unroll: through which part of the training.
        optimizer: how it is followed.
        clip_norm: largest global norm of a hypergradient before the optimizer sees it; null for no
            clipping.
        patience: a phase ends after so many of its outer steps without a new best; null for never.
        objective: what is differentiated.
        fresh: what is drawn anew at every outer step.
        judge: how the best outer step is chosen, over all phases.
        report: how the result is measured.
    """

    steps: int | None = ruled(None, AT_LEAST_ONE)
    phases: tuple[Phase, ...] | None = None
    estimator: Estimator = field(default_factory=MixFlow)
    unroll: Unroll = field(default_factory=Full)
    optimizer: Optimizer = field(default_factory=Adam)
    clip_norm: float | None = ruled(1.0, POSITIVE)
    patience: int | None = ruled(None, AT_LEAST_ONE)
    objective: Objective = field(default_factory=Objective)
    fresh: Fresh = field(default_factory=Fresh)
    judge: Judge = field(default_factory=Judge)
    report: Report = field(default_factory=Report)


@dataclass(frozen=True)
class Recipe:
    """All that `metatune fit` needs."""

    model: Model
    data: Data
    inner: Inner
    tune: Tune
    outer: Outer
    seed: int = ruled(0, NOT_NEGATIVE)
