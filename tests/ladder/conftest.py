"""What tests of ladders share."""

from types import SimpleNamespace

import pytest

from metatune.ladder import climb


@pytest.fixture(autouse=True, scope="module")
def let_go():
    """A word for each time that programs were let go; they are kept, as many climbs share them."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(climb, "jax", SimpleNamespace(clear_caches=lambda: calls.append("programs")))
        yield calls
