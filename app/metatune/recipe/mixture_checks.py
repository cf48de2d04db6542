"""Rules on how a mixture is held: caps, groups, penalties; the table of all is in `checks.py`.

What the amount of text decides is looked at where that is known, in `tunables.mixture`.
"""

from collections import Counter
from collections.abc import Iterable

from metatune.recipe.faults import Fault, unknown
from metatune.recipe.schema import Data, Tune

PATH = "tune.mixture"


def supply_is_capped(tune: Tune, data: Data) -> Iterable[Fault]:
    """Numbers of tokens have an effect on caps only, and are of domains that there are."""
    spec = tune.mixture
    if spec is None:
        return
    if spec.max_epochs is None:
        for name in ("production_tokens", "available_tokens"):
            if (value := getattr(spec, name)) is not None:
                problem = "has no effect without tune.mixture.max_epochs"
                yield Fault(f"{PATH}.{name}", value, problem, "write max_epochs, or take it out")
    for name, tokens in (spec.available_tokens or {}).items():
        path = f"{PATH}.available_tokens.{name}"
        if name not in data.trained:
            yield unknown(path, tokens, "domain", name, list(data.trained))
        if tokens < 1:
            problem = "must be a whole number of 1 or above"
            yield Fault(path, tokens, problem, "take a domain without text out of data.domains")


def groups_part_the_domains(tune: Tune, data: Data) -> Iterable[Fault]:
    """A domain is in one group at most, and groups are of domains that there are."""
    if tune.mixture is None or tune.mixture.groups is None:
        return
    groups = tune.mixture.groups
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


def prior_is_a_mixture(tune: Tune, data: Data) -> Iterable[Fault]:
    """A share above zero for each domain, none below the floor, and a penalty that it is for."""
    if tune.mixture is None or tune.mixture.prior is None:
        return
    path, prior, floor = f"{PATH}.prior", tune.mixture.prior, tune.mixture.floor
    if not tune.mixture.kl:
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


def smoothness_has_neighbours(tune: Tune) -> Iterable[Fault]:
    """A single window doesn't change."""
    if tune.mixture is not None and tune.mixture.smoothness > 0 and tune.mixture.windows == 1:
        problem = "has no effect on a single window"
        cure = "raise tune.mixture.windows, or take it out"
        yield Fault(f"{PATH}.smoothness", tune.mixture.smoothness, problem, cure)
