"""Makes a rule's multipliers part of the weights, where that is exactly the same training.

A rule multiplies branches, logits, scores; the models of others have no such multipliers. One that
stands before or after a product is the same as weights in other units (`Factor.in_units`), which a
trainer can give: larger or smaller fresh numbers, rates, decays, ε. What can't be folded stays
a multiplier, which the trainer must have.
"""

from collections.abc import Collection
from dataclasses import replace

from metatune.transfer.factors import Factors
from metatune.transfer.mapping import counterparts
from metatune.transfer.sizes import Side
from metatune.transfer.stepping import TURNING, Kinds, kind_of, step


def folded(factors: Factors, proxy: Side, target: Side, kinds: Kinds = "adamw") -> Factors:
    """The factors of the target as its own config makes it.

    Args:
        factors: as of a rule.
        proxy: what was tuned.
        target: what is to come.
        kinds: of the optimizer; not `sgd`, whose steps are in the units of gradients.
    """
    whole = target.parameters.items()
    if not target.post_norms:  # else a norm would take the multiplier out again
        writers = [name for name, own in whole if own.writes]
        factors = _in_units(factors, target, kinds, writers, factors.residual)
        factors = replace(factors, residual=1.0)
    if target.embedding_scale != proxy.embedding_scale:
        # Embeddings that the model multiplies by what grows with its width: in units without it.
        ratio = proxy.embedding_scale / target.embedding_scale
        embeddings = [name for name, own in whole if own.role == "embedding"]
        factors = _in_units(factors, target, kinds, embeddings, ratio)
        if target.tied:  # the same weights make the logits, without that factor of the model
            factors = replace(factors, logits=factors.logits / ratio)
    # Weights that are offsets from one can't take it, and `plain_rms` has none.
    if target.tied and target.norm not in ("centred_rms", "plain_rms"):
        last = [name for name, own in whole if own.role == "vector" and own.layer is None]
        factors = _in_units(factors, target, kinds, last, factors.logits)
        factors = replace(factors, logits=1.0)
    queries = [name for name, own in whole if own.queries]
    if not target.query_key_norms and queries:
        factors = _in_units(factors, target, kinds, queries, factors.attention)
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


def _in_units(
    factors: Factors, side: Side, kinds: Kinds, names: Collection[str], by: float
) -> Factors:
    """Parameters of some names in units `by` times as large."""
    if by == 1:
        return factors
    found = dict(factors.parameters)
    for name in names:
        own = step(kind_of(kinds, name), side.parameters[name])
        found[name] = found[name].in_units(by, turned=own in TURNING)
    return replace(factors, parameters=found)
