"""Pictures that tell each other apart and nothing else, in the place of those for TensorBoard.

A search draws several at each of its points, which took more than its training does in tests.
"""

from hashlib import sha256

import numpy as np
import pytest

from metatune.fit import tracking
from metatune.report.pictures import thumbnails

NAMES = ("heat_map", "line_plot", "stacked_area")


def fingerprint(*drawn, **options):
    """Pixels, uint8 [4, 4, 3], that depend on all that would be drawn."""
    curves, *told = drawn
    named = isinstance(curves, dict)
    values = np.stack(list(curves.values())) if named else np.asarray(curves)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"{told}: nothing to draw, or a value that isn't finite")
    said = repr((list(curves) if named else [], told, sorted(options.items())))
    digest = sha256(values.tobytes() + said.encode()).digest()
    return np.frombuffer(digest + digest[:16], np.uint8).reshape(4, 4, 3)


def draw_in_haste(patch):
    """Has a patch take the place of all drawing."""
    for name in NAMES:
        patch.setattr(thumbnails, name, fingerprint)
    patch.setattr(tracking, "line_plot", fingerprint)


@pytest.fixture(autouse=True, scope="session")
def thumbnails_in_haste():
    """In all tests but those that want pictures; the drawing has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        draw_in_haste(patch)
        yield


DRAWN = {name: getattr(thumbnails, name) for name in NAMES}


@pytest.fixture
def pictures(monkeypatch):
    """Draws them, as users have them drawn."""
    for name, draw in DRAWN.items():
        monkeypatch.setattr(thumbnails, name, draw)
    monkeypatch.setattr(tracking, "line_plot", DRAWN["line_plot"])
