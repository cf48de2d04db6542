"""The PyTorch peer of `bench_peer.py`: hypergradients on transformers' own Llama.

`torch.func.functional_call` on the model (eager attention: the fused ones have no second
derivative), Adam written out so that it is differentiable, the state before every inner step kept,
and the backward sweep one step at a time, each replayed and differentiated twice.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

Arrays = dict[str, np.ndarray]
Tensors = list[torch.Tensor]
Trained = tuple[Tensors, Tensors, Tensors]
"""Parameters and the two moments of Adam."""


def llama(shape: Any, given: Arrays) -> LlamaForCausalLM:
    """The model with the given weights."""
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.sequence,
        tie_word_embeddings=shape.tied,
        use_cache=False,
    )
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config).train()  # nothing is dropped; blocks may be recomputed
    with torch.no_grad():
        for name, param in model.named_parameters():
            param.copy_(torch.from_numpy(given[name]))
    return model


def losses(model: Callable[[torch.Tensor], Any], tokens: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss of each sequence."""
    logits = model(tokens[:, :-1]).logits
    flat = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return flat.view(len(tokens), -1).mean(-1)


def batches(given: Arrays) -> Tensors:
    """Those of the inner steps, then the outer one."""
    return [torch.from_numpy(batch).long() for batch in given["tokens"]]


def plain(shape: Any, given: Arrays, *, rate: float, remat: bool) -> dict[str, Callable[[], Any]]:
    """Plain steps, as anyone takes them: a gradient, and a training of as many as the horizon."""
    model = llama(shape, given)
    if remat:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    params, inner = list(model.parameters()), batches(given)[:-1]
    weights, adam = torch.ones(shape.batch), torch.optim.Adam(params, lr=rate)

    def gradient(batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad((weights * losses(model, batch)).mean(), params)

    def train() -> None:
        for batch in inner:
            for param, grad in zip(params, gradient(batch), strict=True):
                param.grad = grad
            adam.step()
            adam.zero_grad()

    return {"gradient": lambda: gradient(inner[0]), "training": train}


def update(state: Trained, grads: Any, log_rates: Tensors, count: int) -> Trained:
    """`optax.scale_by_adam(eps_root=1e-8)`, and a rate for each tensor."""
    after: Trained = ([], [], [])
    for p, m, v, g, log_rate in zip(*state, grads, log_rates, strict=True):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        direction = m / (1 - 0.9**count) / ((v / (1 - 0.999**count) + 1e-8).sqrt() + 1e-8)
        for kept, value in zip(after, (p - log_rate.exp() * direction, m, v), strict=True):
            kept.append(value)
    return after


def fresh(tensors: Tensors) -> Tensors:
    """The same numbers, to differentiate by."""
    return [tensor.detach().requires_grad_() for tensor in tensors]


def hypergradient(shape: Any, given: Arrays, *, rate: float) -> dict[str, Callable[[], Any]]:
    """The hypergradient: that of a log rate by the name of its tensor, and of log `weights`.

    Without block remat: blocks would be recomputed when `functional_call` has taken its parameters
    away again, with the model's own.
    """
    model = llama(shape, given)
    names = [name for name, _ in model.named_parameters()]
    start = [param.detach() for param in model.parameters()]
    *inner, outer = batches(given)

    def at(params: Tensors, tokens: torch.Tensor) -> torch.Tensor:
        named = dict(zip(names, params, strict=True))
        return losses(lambda inputs: functional_call(model, named, (inputs,)), tokens)

    def weighted(params: Tensors, log_weights: torch.Tensor, step: int) -> torch.Tensor:
        return (log_weights.exp() * at(params, inner[step])).mean()

    def forward(state: Trained, eta: Tensors, step: int) -> Trained:
        params = fresh(state[0])
        grads = torch.autograd.grad(weighted(params, eta[-1], step), params)
        with torch.no_grad():
            return update(state, grads, eta[:-1], step + 1)

    def pull(state: Trained, eta: Tensors, step: int, adjoint: Tensors) -> tuple[Tensors, Tensors]:
        """The adjoint before a step, and what the step adds to that of η."""
        params, m, v = map(fresh, state)
        loss = weighted(params, eta[-1], step)
        grads = torch.autograd.grad(loss, params, create_graph=True)
        after = update((params, m, v), grads, eta[:-1], step + 1)
        pulled = torch.autograd.grad(
            [leaf for part in after for leaf in part], [*params, *m, *v, *eta], adjoint
        )
        return list(pulled[: len(adjoint)]), list(pulled[len(adjoint) :])

    def estimate() -> Arrays:
        eta = fresh([torch.tensor(math.log(rate)) for _ in names] + [torch.zeros(shape.batch)])
        state: Trained = (start, [p * 0 for p in start], [p * 0 for p in start])
        before = []
        for step in range(len(inner)):
            before.append(state)
            state = forward(state, eta, step)
        params = fresh(state[0])
        adjoint = [*torch.autograd.grad(at(params, outer).mean(), params)]
        adjoint += [torch.zeros_like(p) for p in (*params, *params)]
        del state, params
        total = [torch.zeros_like(leaf) for leaf in eta]
        for step in reversed(range(len(inner))):
            adjoint, more = pull(before.pop(), eta, step, adjoint)
            total = [a + b for a, b in zip(total, more, strict=True)]
        named = zip([*names, "weights"], total, strict=True)
        return {name: value.numpy() for name, value in named}

    return {"hypergradient": estimate}
