"""A real checkpoint, SmolLM2-135M: as transformers computes it, and loaded in seconds.

Runs where METATUNE_SMOLLM2 names the folder that `scripts/get_smollm2.py` writes.
"""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from metatune.models import load_pretrained

FOLDER = os.environ.get("METATUNE_SMOLLM2")
pytestmark = [
    pytest.mark.smollm2,
    pytest.mark.skipif(
        not FOLDER, reason="METATUNE_SMOLLM2 is not set: scripts/get_smollm2.py makes its folder"
    ),
]
TEXT = (
    "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n"
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n"
    "Paris is the capital of France, and Madrid is that of Spain.\n"
)


@pytest.fixture(scope="module")
def loaded():
    """The model, its parameters, and the seconds that loading took."""
    assert FOLDER
    began = time.perf_counter()
    model, params = load_pretrained(FOLDER)
    jax.block_until_ready(params)
    return model, params, time.perf_counter() - began


def test_it_is_loaded_in_seconds(loaded):
    model, params, seconds = loaded
    print(f"loaded in {seconds:.1f} s")
    assert seconds < 10
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 134_515_008
    assert len(model.config.layers) == 30


def test_logits_are_those_of_transformers(loaded):
    model, params, _ = loaded
    tokens = np.array([AutoTokenizer.from_pretrained(str(FOLDER))(TEXT)["input_ids"]])
    assert tokens.shape[1] > 60
    theirs = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    with torch.no_grad():
        want = theirs(torch.tensor(tokens)).logits.numpy()
    got = np.asarray(jax.jit(model.logits)(params, jnp.asarray(tokens)))
    error = np.abs(got - want).max() / np.abs(want).max()
    print(f"largest difference {error:.1e} of the largest logit")
    assert error < 1e-4
    losses = -jax.nn.log_softmax(got[0, :-1])[np.arange(tokens.shape[1] - 1), tokens[0, 1:]]
    # It has learned to read: chance is log 49152, 10.8 nats.
    assert float(losses.mean()) < 3
