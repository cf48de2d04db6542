"""What tests of ladders share."""

from types import SimpleNamespace

import pytest

from metatune.ladder import climb


@pytest.fixture(autouse=True, scope="module")
def let_go():
    """How often the programs of a rung were let go; here they are kept, as many climbs share them."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(climb, "jax", SimpleNamespace(clear_caches=lambda: calls.append("programs")))
        yield calls
