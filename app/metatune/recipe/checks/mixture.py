"""Rules on a mixture: what it is of, how it begins, how it is held.

What the amount of text decides is looked at where that is known, in `tunables.mixture`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

from metatune.recipe.faults import Fault, unknown
from metatune.recipe.schema import DataSpec, MixtureSpec, TuneSpec
from metatune.recipe.weightings import no_weighting

PATH = "tune.mixture"


def domains_to_choose_between(tune: TuneSpec, data: DataSpec) -> Iterable[Fault]:
    """The share and the weight of a single domain are always one."""
    weights = tune.loss_weights
    of_domains = weights if weights is not None and weights.per == "domain" else None
    for name, settings in (("mixture", tune.mixture), ("loss_weights", of_domains)):
        if settings is not None and len(data.trained) == 1:
            problem = "needs two domains or more to train on in data.domains"
            cure = f"add a domain, or take tune.{name} out"
            yield Fault(f"tune.{name}", asdict(settings), problem, cure)


def floor_leaves_room(tune_mixture: MixtureSpec, data: DataSpec) -> Iterable[Fault]:
    """The floors of all domains together stay below one."""
    count = len(data.trained)
    if tune_mixture.floor * count >= 1:
        problem = f"must be below {1 / count:.4g}, one over the number of domains, {count}"
        yield Fault(f"{PATH}.floor", tune_mixture.floor, problem, "lower it")


def initial_is_a_mixture(tune_mixture: MixtureSpec, data: DataSpec) -> Iterable[Fault]:
    """A number for each domain, and every share inside the simplex that the floor leaves.

    A share *at* the floor is refused too: its logit would be minus infinity, with no gradient.
    """
    path, initial, floor = f"{PATH}.initial", tune_mixture.initial, tune_mixture.floor
    if initial is None:
        return
    for name in initial:
        if name not in data.trained:
            yield unknown(f"{path}.{name}", initial[name], "domain", name, list(data.trained))
    missing = [name for name in data.trained if name not in initial]
    if missing:
        cure = "write a share for each domain, or leave initial out for a uniform mixture"
        yield Fault(path, initial, f"lacks the domains: {', '.join(missing)}", cure)
    yield from no_weighting(path, initial)
    total = sum(initial.values())
    if missing or len(initial) > len(data.trained) or total <= 0 or min(initial.values()) < 0:
        return  # then these numbers are no shares yet
    for name, weight in initial.items():
        if weight / total <= floor:
            problem = (
                f"a share of {weight / total:.4g}; must be above tune.mixture.floor, {floor:.4g}"
            )
            yield Fault(f"{path}.{name}", weight, problem, "raise it, or lower the floor")


def supply_is_capped(tune_mixture: MixtureSpec, data: DataSpec) -> Iterable[Fault]:
    """Numbers of tokens have an effect on caps only, and are of domains that there are."""
    if tune_mixture.max_epochs is None:
        for name in ("production_tokens", "available_tokens"):
            if (value := getattr(tune_mixture, name)) is not None:
                problem = "has no effect without tune.mixture.max_epochs"
                yield Fault(f"{PATH}.{name}", value, problem, "write max_epochs, or take it out")
    for name, tokens in (tune_mixture.available_tokens or {}).items():
        path = f"{PATH}.available_tokens.{name}"
        if name not in data.trained:
            yield unknown(path, tokens, "domain", name, list(data.trained))
        if tokens < 1:
            problem = "must be a whole number of 1 or above"
            yield Fault(path, tokens, problem, "take a domain without text out of data.domains")


def groups_part_the_domains(tune_mixture: MixtureSpec, data: DataSpec) -> Iterable[Fault]:
    """A domain is in one group at most, and groups are of domains that there are."""
    groups = tune_mixture.groups or {}
    times = Counter(name for members in groups.values() for name in members)
    for group, members in groups.items():
        path = f"{PATH}.groups.{group}"
        if not members:
            yield Fault(path, [], "names no domain", "name one or more, or take it out")
        for name in dict.fromkeys(members):
            if name not in data.trained:
                yield unknown(path, list(members), "domain", name, list(data.trained))
            elif times[name] > 1:
                problem = f"domain {name} is named {times[name]} times in the groups"
                yield Fault(path, list(members), problem, "name it once")
        if set(members) >= set(data.trained) and len(data.trained) > 1:
            problem = "holds every domain: its share is always one"
            cure = "name two groups or more, or take groups out"
            yield Fault(path, list(members), problem, cure)


def prior_is_a_mixture(tune_mixture: MixtureSpec, data: DataSpec) -> Iterable[Fault]:
    """A share above zero for each domain, none below the floor, and a penalty that it is for."""
    path, prior, floor = f"{PATH}.prior", tune_mixture.prior, tune_mixture.floor
    if prior is None:
        return
    if not tune_mixture.kl:
        problem = "has no effect without tune.mixture.kl"
        yield Fault(path, prior, problem, "write kl, e.g. kl: 0.01, or take it out")
    for name, weight in prior.items():
        if name not in data.trained:
            yield unknown(f"{path}.{name}", weight, "domain", name, list(data.trained))
        if weight <= 0:
            problem = "must be above 0: what the prior excludes is infinitely far from it"
            yield Fault(f"{path}.{name}", weight, problem, "take a small one, e.g. 0.001")
    missing = [name for name in data.trained if name not in prior]
    if missing:
        cure = "write a share for each domain, or leave prior out for the initial mixture"
        yield Fault(path, prior, f"lacks the domains: {', '.join(missing)}", cure)
    if missing or set(prior) - set(data.trained) or min(prior.values()) <= 0:
        return  # then these numbers are no shares yet
    total = sum(prior.values())
    for name, weight in prior.items():
        if weight / total < floor:
            problem = (
                f"a share of {weight / total:.4g}, which tune.mixture.floor, {floor:.4g}, keeps "
                "the mixture from"
            )
            yield Fault(f"{path}.{name}", weight, problem, "raise it, or lower the floor")


def smoothness_has_neighbours(tune_mixture: MixtureSpec) -> Iterable[Fault]:
    """A single window doesn't change."""
    if tune_mixture.smoothness > 0 and tune_mixture.windows == 1:
        problem = "has no effect on a single window"
        cure = "raise tune.mixture.windows, or take it out"
        yield Fault(f"{PATH}.smoothness", tune_mixture.smoothness, problem, cure)
