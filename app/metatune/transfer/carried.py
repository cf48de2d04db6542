"""Carries what was tuned on a proxy to another training: the whole of it in one function."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from metatune.artefact import Artefact, ArtefactError
from metatune.artefact.demands import FITTED, Demands, Destination, demands, recorded
from metatune.artefact.sections.optimizer import GROUPS
from metatune.transfer import refusals, schedules, supply, words
from metatune.transfer.factors import Factor, Factors
from metatune.transfer.folding import as_made, folded
from metatune.transfer.mapping import Between, counterparts
from metatune.transfer.rules import DEFAULT, RULES
from metatune.transfer.sizes import Side
from metatune.transfer.stepping import Kinds

WHERE: Final = "carrying over"
"""What errors say they are of."""

DIGITS: Final = 14
"""Of factors; the last two of a float64 depend on the order of products."""


class Carried(NamedTuple):
    """A tuned artefact for another training.

    Attributes:
        artefact: for the target; the very one that was given where nothing differs.
        demands: what its trainer must do beyond the schedules; None for nothing.
        done: what was done to the schedules, a line each; nothing where nothing was.
        left: what its trainer must do beyond rates and `metatune train` does, a line each.
        undone: what needs another model than its config says, which no trainer here makes.
        warnings: what may go wrong, a line each.
    """

    artefact: Artefact
    demands: Demands | None
    done: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def factors_of(kinds: Kinds, proxy: Side, target: Side, rule: str) -> Factors:
    """The factors of a rule for the target as its own config makes it.

    Args:
        kinds: of the optimizer, or of that of each parameter of the target.
        proxy: what was tuned.
        target: what is to come.
        rule: a name of `RULES`.
    """
    found = RULES[rule].factors(kinds, proxy, target)
    if RULES[rule].optimizers is None:
        return found
    used = (kinds,) if isinstance(kinds, str) else kinds.values()
    if "sgd" not in used:  # a gradient in other units makes other steps there
        found = folded(found, proxy, target, kinds)
    return _merged(as_made(found, proxy, target))


def _merged(factors: Factors) -> Factors:
    """Factors that differ by rounding as one, so that groups and words don't part them."""

    def rounded(factor: Factor) -> Factor:
        return Factor(*(float(f"{number:.{DIGITS}g}") for number in vars(factor).values()))

    found = {name: rounded(factor) for name, factor in factors.parameters.items()}
    return replace(factors, parameters=found)


def carry(
    artefact: Artefact,
    proxy: Side,
    target: Side,
    rule: str | None = None,
    tokens: Mapping[str, int] | None = None,
) -> Carried:
    """What was tuned on a proxy, for another training of the same family.

    Learning rates, weight decay and the optimizer's numbers follow the rule, layers by relative
    depth. Mixture, loss weights and all others stay as they are: over the fractions of training.

    Args:
        artefact: as it was tuned.
        proxy: the training that it was tuned on.
        target: the training to come.
        rule: a name of `RULES`; by default `complete_d_p` where something differs.
        tokens: of each domain's training data, for the target; by default those of the proxy.

    Raises:
        ArtefactError: no such rule; the two can't be carried between; the rule says nothing of
            what was tuned; parameters that only one of both has.
    """
    if rule is not None and (fault := refusals.named(rule)):
        raise ArtefactError(WHERE, [fault])
    warnings = tuple(supply.warnings(artefact, target, tokens)) if _longer(proxy, target) else ()
    if proxy.like(target) and target.steps in (None, proxy.steps):
        return Carried(artefact, demands(artefact), warnings=warnings)
    faults = [*refusals.impossible(artefact, proxy, target)]
    chosen, noted = RULES[rule or DEFAULT], ()
    unsaid = [*refusals.unsaid(artefact, proxy, target, chosen)]
    if rule is None and unsaid and proxy.like(target):
        # Of the same shapes they have always been taken as they are.
        noted = (f"the rates are taken as they are: {replace(unsaid[0], cure='')}",)
        chosen, unsaid = RULES["none"], []
    if faults or unsaid:
        raise ArtefactError(WHERE, faults + unsaid)
    ours = counterparts(proxy, target)
    proxy, target, ours = _trained(artefact, proxy, target, ours)
    factors = factors_of(_kinds(artefact, ours), proxy, target, chosen.name)
    if factors.memory > 1 and proxy.steps and target.steps:
        warnings = (
            f"warning: a training {proxy.steps / target.steps:.3g} times shorter than the tuned "
            "one has higher rates by this rule, and Adam forgets sooner; it was measured towards "
            "longer ones: compare with --rule none",
        )
    if proxy.like(target) and _all_one(factors):
        said = (*noted, *(f"not known: {what}" for what in factors.unknown))
        return Carried(artefact, None, said, warnings=warnings)
    optimizer = schedules.optimizer(artefact, ours, factors)
    asked = Demands(
        rule=chosen.name,
        initial_scale={n: f.initial for n, f in factors.parameters.items() if f.initial != 1},
        eps=schedules.eps_apart(artefact.optimizer, factors),
        settings=schedules.changed_settings(artefact.optimizer, optimizer),
        residual=factors.residual,
        logits=factors.logits,
        attention=factors.attention,
    )
    done = (*noted, *words.done(chosen, proxy, target, factors))
    left = (*words.left(asked, target), *words.decays(factors, optimizer))
    undone = tuple(words.undone(asked))
    to = Destination(target.source, target.config, target.steps)
    carried = replace(
        artefact,
        learning_rates=schedules.rates(artefact, ours, factors),
        optimizer=optimizer,
        provenance={**artefact.provenance, FITTED: recorded(asked, to, [*done, *left, *undone])},
    )
    return Carried(carried, asked, done, left, undone, warnings)


def _kinds(artefact: Artefact, ours: Mapping[str, Between]) -> Kinds:
    """The kind of optimizer of each of the target's parameters: that of its counterpart's group."""
    optimizer = artefact.optimizer
    if GROUPS not in optimizer.settings:
        return optimizer.settings["kind"]
    return {name: optimizer.kinds[optimizer.place(at.lower)] for name, at in ours.items()}


def _longer(proxy: Side, target: Side) -> bool:
    return target.steps is not None and (proxy.tokens or 0) < (target.tokens or 0)


def _all_one(factors: Factors) -> bool:
    others = (factors.residual, factors.logits, factors.attention, factors.memory)
    return set(factors.parameters.values()) == {Factor()} and set(others) == {1.0}


def _trained(
    artefact: Artefact, proxy: Side, target: Side, ours: Mapping[str, Between]
) -> tuple[Side, Side, dict[str, Between]]:
    """Both sides without the parameters that stay as they are in the tuned training."""
    rates = artefact.learning_rates.parameters
    kept = {name: at for name, at in ours.items() if at.lower in rates and at.upper in rates}
    return (
        replace(proxy, parameters={n: own for n, own in proxy.parameters.items() if n in rates}),
        replace(target, parameters={name: target.parameters[name] for name in kept}),
        kept,
    )
