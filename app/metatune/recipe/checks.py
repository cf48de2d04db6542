"""Rules between the fields of a recipe: one small function each, and the table of all.

A rule on a single value stands beside its field in `schema` instead.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any, Final, get_args

from metatune.recipe.data_checks import (
    all_domains_have_labels_or_none,
    batch_holds_every_domain,
    both_splits_are_measured,
    one_source_a_domain,
    one_way_to_read_a_record,
    options_fit_the_source,
    plain_text_is_corrupted,
    something_is_trained_on,
    streams_have_a_budget,
    there_are_domains,
)
from metatune.recipe.faults import Fault, unknown
from metatune.recipe.initialisation_checks import (
    a_point_is_the_same_for_all,
    an_external_trainer_starts_by_itself,
    checkpoints_are_of_the_trained_model,
    some_step_sees_the_start,
)
from metatune.recipe.learned_update_checks import (
    a_step_can_be_corrected,
    an_external_trainer_steps_by_itself,
    one_size_of_the_step,
)
from metatune.recipe.loss_checks import (
    a_tuned_term_is_there,
    some_term_is_tuned,
    some_token_is_two_ahead,
)
from metatune.recipe.mixture_checks import (
    groups_part_the_domains,
    prior_is_a_mixture,
    smoothness_has_neighbours,
    supply_is_capped,
)
from metatune.recipe.optimizer_checks import (
    an_optimizer_has_what_is_tuned,
    gradients_show_in_the_update,
    one_average_is_kept,
    some_field_is_tuned,
    what_is_multiplied_is_not_zero,
)
from metatune.recipe.outer_checks import (
    an_external_trainer_measures_by_itself,
    an_external_trainer_takes_rates_of_whole_parameters,
    choices_for_all_are_used,
    clips_are_of_what_is_tuned,
    horizons_reach_every_window,
    one_way_to_measure,
    points_are_steps,
    rates_are_of_what_is_tuned,
    sign_steps_begin_above_the_tolerance,
    steps_or_phases,
    unroll_fits_the_training,
    worst_case_has_cases,
)
from metatune.recipe.population_checks import (
    a_population_is_differentiated_here,
    members_at_once_are_taken_backward,
    members_of_other_ages_end_together,
)
from metatune.recipe.schema import (
    Class,
    Data,
    Inner,
    LossWeights,
    Model,
    Point,
    TransformerRater,
    Tune,
    WarmupStableDecay,
)
from metatune.recipe.sharing_checks import a_search_can_split, there_is_something_to_share


def check(sections: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults between fields of a recipe.

    Args:
        sections: those sections of a recipe that are sound by themselves, by name. A rule that
            needs one that isn't there is left out.
    """
    for rule, names in CHECKS:
        if all(name in sections for name in names):
            yield from rule(*(sections[name] for name in names))


def something_is_tuned(tune: Tune) -> Iterable[Fault]:
    """At least one entry."""
    if all(getattr(tune, field.name) is None for field in fields(tune)):
        names = ", ".join(field.name for field in fields(tune))
        cure = f"write one of {names}, e.g. `learning_rates: {{}}` for its defaults"
        yield Fault("tune", {}, "nothing is tuned", cure)


def windows_have_steps(tune: Tune, inner: Inner) -> Iterable[Fault]:
    """A window is one inner step or more."""
    for _, path, settings in tune.entries():
        if getattr(settings, "windows", 1) > inner.steps:
            problem = f"must be at most inner.steps, {inner.steps}"
            cure = "lower it, or raise inner.steps"
            yield Fault(f"{path}.windows", settings.windows, problem, cure)


def a_rater_sees_whole_batches(tune: Tune, inner: Inner) -> Iterable[Fault]:
    """The weights of a batch depend on all of its scores."""
    if tune.rater is not None and inner.micro_batch is not None:
        problem = "tune.rater is tuned: the weights of a batch depend on all of its sequences"
        yield Fault("inner.micro_batch", inner.micro_batch, problem, "take one of the two out")


def heads_divide_the_rater(tune: Tune) -> Iterable[Fault]:
    """Each head of a rater has as much of its width."""
    rater = tune.rater
    if isinstance(rater, TransformerRater) and rater.hidden_size % rater.heads:
        problem = f"must be a multiple of tune.rater.heads, {rater.heads}"
        yield Fault("tune.rater.hidden_size", rater.hidden_size, problem, "change one of the two")


def domains_to_choose_between(tune: Tune, data: Data) -> Iterable[Fault]:
    """The share and the weight of a single domain are always one."""
    for name, settings in (("mixture", tune.mixture), ("loss_weights", _of_domains(tune))):
        if settings is not None and len(data.trained) == 1:
            problem = "needs two domains or more to train on in data.domains"
            cure = f"add a domain, or take tune.{name} out"
            yield Fault(f"tune.{name}", asdict(settings), problem, cure)


def _of_domains(tune: Tune) -> LossWeights | None:
    """The loss weights, if they are those of domains."""
    weights = tune.loss_weights
    return weights if weights is not None and weights.per == "domain" else None


def one_weight_a_domain(tune: Tune) -> Iterable[Fault]:
    """Shares and loss weights of domains multiply the same gradient: only their product counts."""
    if tune.mixture is not None and (weights := _of_domains(tune)) is not None:
        problem = "tune.mixture is tuned too: both weigh the domains, the same number twice"
        cure = "take out tune.loss_weights or tune.mixture"
        yield Fault("tune.loss_weights", asdict(weights), problem, cure)


def floor_leaves_room(tune: Tune, data: Data) -> Iterable[Fault]:
    """The floors of all domains together stay below one."""
    count = len(data.trained)
    if tune.mixture is not None and tune.mixture.floor * count >= 1:
        problem = f"must be below {1 / count:.4g}, one over the number of domains, {count}"
        yield Fault("tune.mixture.floor", tune.mixture.floor, problem, "lower it")


def initial_is_a_mixture(tune: Tune, data: Data) -> Iterable[Fault]:
    """A number for each domain, and every share inside the simplex that the floor leaves.

    A share *at* the floor is refused too: its logit would be minus infinity, with no gradient.
    """
    if tune.mixture is None or tune.mixture.initial is None:
        return
    path, initial = "tune.mixture.initial", tune.mixture.initial
    for name in initial:
        if name not in data.trained:
            yield unknown(f"{path}.{name}", initial[name], "domain", name, list(data.trained))
    missing = [name for name in data.trained if name not in initial]
    if missing:
        cure = "write a share for each domain, or leave initial out for a uniform mixture"
        yield Fault(path, initial, f"lacks the domains: {', '.join(missing)}", cure)
    yield from _weights(path, initial)
    total = sum(initial.values())
    if missing or len(initial) > len(data.trained) or total <= 0 or min(initial.values()) < 0:
        return  # then these numbers are no shares yet
    for name, weight in initial.items():
        if weight / total <= tune.mixture.floor:
            problem = (
                f"a share of {weight / total:.4g}; "
                f"must be above tune.mixture.floor, {tune.mixture.floor:.4g}"
            )
            yield Fault(f"{path}.{name}", weight, problem, "raise it, or lower the floor")


def buckets_are_of_positions_or_frequencies(tune: Tune) -> Iterable[Fault]:
    """Domains and parts of documents are as many as there are."""
    weights = tune.loss_weights
    if weights is None or weights.buckets is None or weights.per in ("position", "frequency"):
        return
    problem = f"has no effect on weights per {weights.per}"
    cure = "take it out, or weigh per position or frequency"
    yield Fault("tune.loss_weights.buckets", weights.buckets, problem, cure)


def initial_loss_weights_are_positive(tune: Tune, data: Data) -> Iterable[Fault]:
    """Weights are tuned by their logarithms; each belongs to something that there is."""
    weights = tune.loss_weights
    if weights is None or weights.initial is None:
        return
    if weights.per == "domain":
        names = list(data.trained)
    elif weights.per == "class":
        names = list(get_args(Class))
    elif weights.per == "label":  # which the data says
        names = list(weights.initial)
    else:
        names = list(weights.bucket_names)
    for name, weight in weights.initial.items():
        path = f"tune.loss_weights.initial.{name}"
        if name not in names:
            yield unknown(path, weight, weights.per, name, names)
        if weight <= 0:
            problem = "must be above 0: weights are tuned by their logarithms"
            yield Fault(path, weight, problem, "take a small one for almost none, e.g. 0.01")


def _weights(path: str, weights: Mapping[str, float]) -> Iterable[Fault]:
    """Weights that are normalised by their sum: none below zero, one above it."""
    for name, weight in weights.items():
        if weight < 0:
            problem, cure = "must be 0 or above", "weights are normalised to sum to one"
            yield Fault(f"{path}.{name}", weight, problem, cure)
    if all(weight == 0 for weight in weights.values()):
        yield Fault(path, weights, "must have a weight above 0", "weigh at least one domain")


def target_is_a_weighting(data: Data) -> Iterable[Fault]:
    """The held-out loss averages over domains that there are."""
    for name in data.target:
        if name not in data.domains:
            path = f"data.target.{name}"
            yield unknown(path, data.target[name], "domain", name, list(data.domains))
    yield from _weights("data.target", data.target)


def one_origin_of_the_model(model: Model) -> Iterable[Fault]:
    """A model is built from a config, or loaded with its weights; the hub has revisions."""
    if (model.config is None) == (model.pretrained is None):
        cure = "write one of them" if model.config is None else "keep one of them"
        said = {"config": model.config, "pretrained": model.pretrained}
        problem = "must have exactly one of config and pretrained"
        yield Fault("model", {k: v for k, v in said.items() if v is not None}, problem, cure)
    if model.revision is not None and model.pretrained is None:
        problem, cure = "is of a pretrained model", "write model.pretrained, or take it out"
        yield Fault("model.revision", model.revision, problem, cure)


def weights_of_labels_have_labels(tune: Tune, data: Data) -> Iterable[Fault]:
    """Labels are a column of the data."""
    weights = tune.loss_weights
    if weights is None or weights.per != "label":
        return
    if not any(source.label for source in data.domains.values()):
        cure = "write label: NAME OF ITS COLUMN in each of data.domains"
        yield Fault("tune.loss_weights.per", "label", "no domain has a label", cure)


def groups_are_expressions(tune: Tune) -> Iterable[Fault]:
    """Groups of parameters are regular expressions, one or more."""
    for _, entry, settings in tune.entries():
        per, path = getattr(settings, "per", ""), f"{entry}.per"
        if isinstance(per, str):
            continue
        if not per:
            yield Fault(path, per, "names no group", "write at least one regular expression")
        if isinstance(per, Mapping):
            expressions = {f"{path}.{name}": expression for name, expression in per.items()}
        else:
            expressions = {f"{path}[{index}]": expression for index, expression in enumerate(per)}
        yield from _no_expressions(expressions)
    if isinstance(tune.initialisation, Point):
        path, moved = "tune.initialisation.parameters", tune.initialisation.parameters or ()
        yield from _no_expressions({f"{path}[{i}]": e for i, e in enumerate(moved)})


def windows_to_go_between(tune: Tune) -> Iterable[Fault]:
    """What is said of the way from window to window has an effect."""
    rates, path = tune.learning_rates, "tune.learning_rates"
    if rates is None or rates.windows > 1:
        return
    cure = f"leave it out, or raise {path}.windows"
    if rates.interpolation == "linear":
        problem = "has no effect on a single window"
        yield Fault(f"{path}.interpolation", rates.interpolation, problem, cure)
    if rates.smoothness > 0:
        problem = "has no effect on a single window"
        yield Fault(f"{path}.smoothness", rates.smoothness, problem, cure)


def what_is_trained_is_expressions(inner: Inner) -> Iterable[Fault]:
    """What is trained and what has adapters are regular expressions, one or more."""
    lists = {"inner.train": inner.train, "inner.lora.targets": inner.lora and inner.lora.targets}
    for path, expressions in lists.items():
        if expressions is not None and not expressions:
            yield Fault(path, [], "names nothing", "write at least one regular expression")
        yield from _no_expressions({f"{path}[{i}]": e for i, e in enumerate(expressions or ())})


def _no_expressions(expressions: Mapping[str, str]) -> Iterable[Fault]:
    """A fault for each that isn't a regular expression, by its dotted path."""
    for where, expression in expressions.items():
        try:
            re.compile(expression)
        except re.error as error:
            cure = "write one as Python's `re` reads it, e.g. self_attn"
            yield Fault(where, expression, f"not a regular expression: {error}", cure)


def schedule_fits(inner: Inner) -> Iterable[Fault]:
    """Warmup and decay don't overlap."""
    schedule = inner.optimizer.schedule
    if isinstance(schedule, WarmupStableDecay) and schedule.warmup + schedule.decay > 1:
        problem = f"with warmup = {schedule.warmup} exceeds the training; must sum to at most 1"
        path = "inner.optimizer.schedule.decay"
        yield Fault(path, schedule.decay, problem, "lower one of them")


def micro_batch_divides_the_batch(inner: Inner, data: Data) -> Iterable[Fault]:
    """All micro-batches are of one size."""
    if inner.micro_batch is not None and data.batch_size % inner.micro_batch:
        problem = f"must divide data.batch_size, {data.batch_size}"
        cure = "change one of the two, or leave it out for the whole batch"
        yield Fault("inner.micro_batch", inner.micro_batch, problem, cure)


# Every rule, with the sections of the recipe that it takes, in the order of its arguments.
CHECKS: Final[tuple[tuple[Callable[..., Iterable[Fault]], tuple[str, ...]], ...]] = (
    (one_origin_of_the_model, ("model",)),
    (there_are_domains, ("data",)),
    (one_source_a_domain, ("data",)),
    (options_fit_the_source, ("data",)),
    (one_way_to_read_a_record, ("data",)),
    (plain_text_is_corrupted, ("data",)),
    (streams_have_a_budget, ("data",)),
    (all_domains_have_labels_or_none, ("data",)),
    (target_is_a_weighting, ("data",)),
    (both_splits_are_measured, ("data",)),
    (batch_holds_every_domain, ("data",)),
    (something_is_trained_on, ("data",)),
    (schedule_fits, ("inner",)),
    (what_is_trained_is_expressions, ("inner",)),
    (micro_batch_divides_the_batch, ("inner", "data")),
    (steps_or_phases, ("outer",)),
    (choices_for_all_are_used, ("outer",)),
    (unroll_fits_the_training, ("outer", "inner")),
    (an_external_trainer_measures_by_itself, ("outer",)),
    (an_external_trainer_takes_rates_of_whole_parameters, ("outer", "tune")),
    (one_way_to_measure, ("outer",)),
    (worst_case_has_cases, ("outer", "data")),
    (points_are_steps, ("outer", "inner")),
    (a_population_is_differentiated_here, ("outer",)),
    (members_at_once_are_taken_backward, ("outer",)),
    (members_of_other_ages_end_together, ("outer", "inner")),
    (horizons_reach_every_window, ("outer", "inner", "tune")),
    (rates_are_of_what_is_tuned, ("outer", "tune")),
    (clips_are_of_what_is_tuned, ("outer", "tune")),
    (sign_steps_begin_above_the_tolerance, ("outer", "tune")),
    (something_is_tuned, ("tune",)),
    (some_field_is_tuned, ("tune",)),
    (an_optimizer_has_what_is_tuned, ("tune", "inner")),
    (what_is_multiplied_is_not_zero, ("tune", "inner")),
    (gradients_show_in_the_update, ("tune", "inner", "outer")),
    (some_term_is_tuned, ("tune",)),
    (a_tuned_term_is_there, ("tune", "inner")),
    (some_token_is_two_ahead, ("data", "inner")),
    (one_size_of_the_step, ("tune",)),
    (a_step_can_be_corrected, ("tune", "inner")),
    (one_average_is_kept, ("tune", "inner")),
    (an_external_trainer_steps_by_itself, ("tune", "outer")),
    (one_weight_a_domain, ("tune",)),
    (windows_have_steps, ("tune", "inner")),
    (a_rater_sees_whole_batches, ("tune", "inner")),
    (heads_divide_the_rater, ("tune",)),
    (groups_are_expressions, ("tune",)),
    (windows_to_go_between, ("tune",)),
    (there_is_something_to_share, ("tune",)),
    (a_search_can_split, ("tune", "outer")),
    (domains_to_choose_between, ("tune", "data")),
    (floor_leaves_room, ("tune", "data")),
    (initial_is_a_mixture, ("tune", "data")),
    (supply_is_capped, ("tune", "data")),
    (groups_part_the_domains, ("tune", "data")),
    (prior_is_a_mixture, ("tune", "data")),
    (smoothness_has_neighbours, ("tune",)),
    (buckets_are_of_positions_or_frequencies, ("tune",)),
    (weights_of_labels_have_labels, ("tune", "data")),
    (initial_loss_weights_are_positive, ("tune", "data")),
    (a_point_is_the_same_for_all, ("tune", "model", "inner", "outer")),
    (checkpoints_are_of_the_trained_model, ("tune", "model", "inner")),
    (some_step_sees_the_start, ("tune", "outer", "inner")),
    (an_external_trainer_starts_by_itself, ("tune", "outer")),
)
