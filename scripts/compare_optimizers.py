"""SOAP and NorMuon beside their authors' PyTorch code, 50 updates in float64.

    git clone https://github.com/nikhilvyas/SOAP && git -C SOAP checkout a1e5535
    git clone https://github.com/zichongli5/NorMuon && git -C NorMuon checkout d45c9a4
    python scripts/compare_optimizers.py SOAP/soap.py NorMuon/normuon.py

Prints how far parameters are apart at most. Both files cast to fewer bits on their way (to float32
and to bfloat16): here what casts gives float64. Matrices are square where SOAP rotates them, of any
other its first basis is LAPACK's rounding.
"""

import importlib.util
import sys
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from metatune.inner import optimizers
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import Hyper

STEPS, RATE = 50, 0.02


def loaded(path: str) -> ModuleType:
    """A file as a module."""
    spec = importlib.util.spec_from_file_location("authors", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def apart(
    spec: schema.InnerOptimizerSpec, shapes: dict[str, tuple[int, ...]], theirs: Any
) -> float:
    """The largest difference of an element after any update.

    Args:
        spec: ours.
        shapes: of parameters, those of two layers in one.
        theirs: from a list of PyTorch's parameters to their optimizer.
    """
    rng = np.random.default_rng(0)
    names = {
        "layers": {
            name: ParameterNames((f"layers.0.{name}", f"layers.1.{name}"), stacked=True)
            for name in shapes
        }
    }
    start = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    other = {
        (name, layer): torch.nn.Parameter(torch.tensor(start[name][layer]))
        for name in shapes
        for layer in range(2)
    }
    optimizer = theirs(list(other.values()))
    ours = optimizers.build(spec, names)
    params: Any = {"layers": jax.tree.map(jnp.asarray, start)}
    rates = jax.tree.map(lambda leaf: jnp.full((1,) * leaf.ndim, RATE), params)
    hyper = Hyper(rates, jnp.ones(1), jnp.ones(1))
    state, update, worst = ours.init(params), jax.jit(ours.update), 0.0
    for _ in range(STEPS):
        grads = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        params, state = update({"layers": jax.tree.map(jnp.asarray, grads)}, state, params, hyper)
        for (name, layer), parameter in other.items():
            parameter.grad = torch.tensor(grads[name][layer])
        optimizer.step()
        for (name, layer), parameter in other.items():
            found = np.asarray(params["layers"][name][layer])
            worst = max(worst, float(np.abs(found - parameter.detach().numpy()).max()))
    return worst


def main() -> None:
    """Compares both."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    jax.config.update("jax_enable_x64", True)
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.bfloat16 = torch.Tensor.double
    soap, normuon = map(loaded, sys.argv[1:])
    found = apart(
        schema.SoapSpec(RATE, eps_root=1e-60, weight_decay=0.0, precondition_frequency=5),
        {"a": (2, 6, 6), "b": (2, 4, 4), "norm": (2, 4)},
        lambda given: soap.SOAP(given, lr=RATE, weight_decay=0.0, precondition_frequency=5),
    )
    print(f"soap: {found:.2g} apart")
    # The norm that ε is added to is of a trace of gradients here, 1 / (1 - momentum) as large.
    found = apart(
        schema.NorMuonSpec(RATE, eps=1e-7 / 0.05),
        {"a": (2, 6, 6), "b": (2, 8, 4), "c": (2, 3, 4)},
        lambda given: normuon.SingleDeviceNorMuon(given, lr=RATE, weight_decay=0.1),
    )
    print(f"normuon: {found:.2g} apart")


if __name__ == "__main__":
    main()
