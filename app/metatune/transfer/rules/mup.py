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

Other steps have their rates from what features of all widths need (Yang, Simon & Bernstein, 2023, A
Spectral Condition for Feature Learning, arXiv 2310.17813, condition 1): a step of spectral norm
sqrt(fan-out / fan-in). Derived from that, where the paper has no such optimizer:

    orthogonal (Muon)     r(sqrt min(1, fan-out / fan-in)), as its step has the spectral norm
                          rate · sqrt max(1, fan-out / fan-in): 1 where both fans grow alike. Steps
                          of rate · sqrt max(fan-out, fan-in), as of Moonlight (Liu et al., 2025,
                          arXiv 2502.16982), would want 1 / sqrt m_N; no optimizer here has these
    turned, along Adam's  1 / (r(fan-in) r(fresh)), as its numbers move by the rate times the size
                          of fresh ones: 1 / sqrt r(fan-in), and 1 of the head
    turned, orthogonal    r(sqrt min(fan-out, fan-in)) / (r(fan-in) r(fresh)), as all of that many
                          singular values have a like part of the rate times the norm

Weight decay is over the rate's factor; what is turned has none. ε of an orthogonal step is beside
the Frobenius norm of a momentum, of as many numbers as the matrix has: sqrt(r(fan-in) r(fan-out))
times that of Adam. A step is orthogonal where the gradients of a batch have more directions than a
matrix; of fewer, a turned one puts the same norm on few, and is larger than this.

Experts are matrices in blocks, each with its own fans. A router has as many outputs at any width,
so it is a head: rate 1 / r(fan-in), fresh numbers 1 / r(fan-in), ε 1. With fresh numbers of
1 / sqrt r(fan-in), as of a hidden matrix, its logits would begin as large at any width, but what it
sends back to the stream would be sqrt m_N times what the head does. The bias of a router moves as
it is, with ε 1, like its logits. (Małaśnicki et al., 2025, μ-Parametrization for Mixture of
Experts, arXiv 2508.09752, derive one of widths; their abstract is what could be read, so this is
derived here.)

Source: Yang et al., 2022, Tensor Programs V: Tuning Large Neural Networks via Zero-Shot
Hyperparameter Transfer, arXiv 2203.03466, tables 3 and 8.
"""

import math
from typing import Final

from metatune.transfer.factors import Factor, Factors
from metatune.transfer.mapping import counterparts
from metatune.transfer.rules.rule import Rule
from metatune.transfer.sizes import Parameter, Role, Side
from metatune.transfer.stepping import SAID, TURNING, Kinds, Step, kind_of, step

READOUTS: Final[tuple[Role, ...]] = ("head", "router")

AT_ANY_WIDTH: Final[tuple[Role, ...]] = (*READOUTS, "router_bias", "query_key_norm")
"""What has gradients as large at any width. That of a norm that all heads share sums over them, as
many more as it is smaller."""


def factors(kinds: Kinds, proxy: Side, target: Side) -> Factors:
    """Those of both tables."""
    wider = target.hidden / proxy.hidden
    ours = counterparts(proxy, target)
    found = {}
    for name, theirs in target.parameters.items():
        own = proxy.parameters[ours[name].lower]
        found[name] = _factor(step(kind_of(kinds, name), theirs), own, theirs, wider)
    return Factors(
        found,
        logits=1 / wider if target.tied else 1.0,
        attention=math.sqrt(proxy.head_dim / target.head_dim),
    )


def _factor(how: Step, proxy: Parameter, target: Parameter, wider: float) -> Factor:
    into, out = target.into / proxy.into, target.out / proxy.out
    initial = 1 / into if target.role in READOUTS else 1 / math.sqrt(into)
    if how == "sgd":
        return Factor(out / into, into / out, 1.0, initial)
    eps = 1.0 if target.role in AT_ANY_WIDTH else 1 / wider
    if "orthogonal" in how:
        eps *= math.sqrt(into * out)
    if how == "orthogonal":
        rate = math.sqrt(min(1, target.out / target.into) / min(1, proxy.out / proxy.into))
    elif how == "turned orthogonal":
        ranks = min(target.out, target.into) / min(proxy.out, proxy.into)
        rate = math.sqrt(ranks) / (into * initial)
    else:
        rate = 1 / (into * initial) if how == "turned" else 1 / into
    return Factor(rate, 1.0 if how in TURNING else 1 / rate, eps, initial)


MUP = Rule(
    "mup",
    "muP (Yang et al. 2022, tables 3 and 8)",
    factors,
    optimizers=(*SAID, "sgd"),
    promises=("width",),
)
