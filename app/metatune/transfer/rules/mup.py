"""`mup`: width, by the maximal update parametrisation.

With r the growth of a fan, target over proxy, and m_N that of the residual stream; what has no
width counts as 1: the vocabulary and the positions of embeddings, the tokens that a head tells
apart, the fan-in of norms and biases.

Adam moves every number of a parameter by about its rate, whatever the size of its gradient, and a
product sums such moves over the fan-in, all in one direction; fresh numbers are summed in random
directions. Hence, under Adam (Yang et al., table 3; of tied embeddings table 8):

    rate              1 / r(fan-in): hidden matrices and the head; embeddings, norms, biases keep it
    fresh numbers     1 / sqrt r(fan-in) of hidden matrices, 1 / r(fan-in) of the head, 1 of others
    logits            1 / m_N where the embedding is the head too, whose rate is an embedding's
    attention         scores by the head's size, not its root: sqrt of 1 / r(head_dim) (section 4)

and, which that paper leaves open, so that the shrinking by rate times weight decay is as it was and
ε stays as small against the gradients, which shrink by m_N below the head (Dey et al., 2025, arXiv
2505.01618, table 1, columns of muP; as Mlodozeniec et al., 2025, have them once the head's
multiplier is part of its weights):

    weight decay      r(fan-in)
    ε                 1 / m_N; of the head 1, and of norms of queries and keys, whose gradients sum
                      over all heads

Under SGD (table 3) a rate is r(fan-out) / r(fan-in), and weight decay the inverse.

Source: Yang et al., 2022, Tensor Programs V: Tuning Large Neural Networks via Zero-Shot
Hyperparameter Transfer, arXiv 2203.03466, tables 3 and 8.
"""

import math

from metatune.transfer.factors import Factor, Factors
from metatune.transfer.mapping import counterparts
from metatune.transfer.rules.rule import Rule
from metatune.transfer.sizes import Parameter, Side


def factors(kind: str, proxy: Side, target: Side) -> Factors:
    """Those of both tables."""
    wider = target.hidden / proxy.hidden
    ours = counterparts(proxy, target)
    found = {}
    for name, theirs in target.parameters.items():
        own = proxy.parameters[ours[name].lower]
        found[name] = _factor(kind, own, theirs, wider)
    return Factors(
        found,
        logits=1 / wider if target.tied else 1.0,
        attention=math.sqrt(proxy.head_dim / target.head_dim),
    )


def _factor(kind: str, proxy: Parameter, target: Parameter, wider: float) -> Factor:
    into, out = target.into / proxy.into, target.out / proxy.out
    initial = 1 / into if target.role == "head" else 1 / math.sqrt(into)
    if kind == "sgd":
        return Factor(out / into, into / out, 1.0, initial)
    # The gradient of a norm that all heads share sums over them, as many more as it is smaller.
    eps = 1.0 if target.role in ("head", "query_key_norm") else 1 / wider
    return Factor(1 / into, into, eps, initial)


MUP = Rule(
    "mup",
    "muP (Yang et al. 2022, tables 3 and 8)",
    factors,
    optimizers=("adamw", "sgd"),
    promises=("width",),
)
