"""A recipe that every test of this folder starts from."""

import pytest


@pytest.fixture
def tree():
    """A sound recipe as plain values; a fresh one for each test, to be changed."""
    return {
        "model": {"config": {"model_type": "llama", "max_position_embeddings": 64}},
        "data": {
            "domains": {"code": {"shipped": "code_stdlib"}, "prose": {"path": "prose.txt"}},
            "target": {"code": 1.0},
            "sequence_length": 32,
            "batch_size": 8,
        },
        "inner": {"optimizer": {"kind": "adamw", "learning_rate": 0.003}, "steps": 20},
        "tune": {"learning_rates": {"windows": 2}},
        "outer": {"steps": 3},
    }
