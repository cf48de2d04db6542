"""Makes a rule's multipliers part of the weights, where that is exactly the same training.

A rule multiplies branches, logits, scores; the models of others have no such multipliers. One that
stands before or after a product is the same as weights in other units (`Factor.in_units`), which a
trainer can give: larger or smaller fresh numbers, rates, decays, ε. What can't be folded stays
a multiplier, which the trainer must have.
"""

from collections.abc import Callable
from dataclasses import replace

from metatune.transfer.factors import Factors
from metatune.transfer.mapping import counterparts
from metatune.transfer.sizes import Parameter, Side


def folded(factors: Factors, proxy: Side, target: Side) -> Factors:
    """The factors of the target as its own config makes it.

    Args:
        factors: as of a rule, for Adam.
        proxy: what was tuned.
        target: what is to come.
    """
    if not target.post_norms:  # else a norm would take the multiplier out again
        factors = _in_units(factors, target, lambda _, own: own.writes, factors.residual)
        factors = replace(factors, residual=1.0)
    if target.embedding_scale != proxy.embedding_scale:
        factors = _embeddings(factors, proxy, target)
    # Weights that are offsets from one can't take it, and `plain_rms` has none.
    if target.tied and target.norm not in ("centred_rms", "plain_rms"):
        last = _last_norm(target)
        factors = _in_units(factors, target, lambda name, _: name in last, factors.logits)
        factors = replace(factors, logits=1.0)
    if not target.query_key_norms and any(own.queries for own in target.parameters.values()):
        factors = _in_units(factors, target, lambda _, own: own.queries, factors.attention)
        factors = replace(factors, attention=1.0)
    return factors


def as_made(factors: Factors, proxy: Side, target: Side) -> Factors:
    """Factors of fresh numbers against those that the target's own config asks for.

    A rule's are against the proxy's: `initial` becomes wanted over made.
    """
    ours, found = counterparts(proxy, target), {}
    for name, factor in factors.parameters.items():
        tuned, made = proxy.parameters[ours[name].lower].std, target.parameters[name].std
        ratio = 1.0 if tuned is None or made is None else tuned / made
        found[name] = replace(factor, initial=factor.initial * ratio)
    return replace(factors, parameters=found)


def _embeddings(factors: Factors, proxy: Side, target: Side) -> Factors:
    """Embeddings that the model multiplies by what grows with its width, in units without it."""
    ratio = proxy.embedding_scale / target.embedding_scale
    factors = _in_units(factors, target, lambda _, own: own.role == "embedding", ratio)
    # Tied, the same weights make the logits, without that factor of the model.
    return replace(factors, logits=factors.logits / ratio) if target.tied else factors


def _last_norm(side: Side) -> list[str]:
    """The parameters of the norm between the blocks and the logits."""
    return [n for n, own in side.parameters.items() if own.role == "vector" and own.layer is None]


def _in_units(
    factors: Factors, side: Side, which: Callable[[str, Parameter], bool], by: float
) -> Factors:
    """Those parameters for which `which` holds, in units `by` times as large."""
    if by == 1:
        return factors
    found = {
        name: factor.in_units(by) if which(name, side.parameters[name]) else factor
        for name, factor in factors.parameters.items()
    }
    return replace(factors, parameters=found)
