"""A search goes on on other devices: this file runs itself in a process with eight virtual ones."""

import gc
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from recipes import tiny
from rich.console import Console
from thumbnails_in_haste import draw_in_haste

from metatune.fit.outer_loop import SearchOutcome, fit
from metatune.fit.searching import hypergradients
from metatune.hypergrad import hypergradient
from metatune.inner import prepare
from metatune.inner.training import InnerTraining
from metatune.recipe import schema

VIRTUAL = 8
BEGUN = (4, 2, 1)
FEWER = {"4": (2, 2, 1), "1": (1, 1, 1)}


def training(mesh: tuple[int, int, int]) -> InnerTraining:
    """One of a search whose inner training, on the mesh, goes on from outer step to outer step."""
    recipe = tiny(
        data={"batch_size": VIRTUAL},
        inner={"optimizer": schema.AdamWSpec(learning_rate=1e-2, eps_root=1e-5)},
        devices=schema.DevicesSpec(*mesh),
    )
    online = {"steps": 2, "unroll": schema.OnlineSpec(window=4, lifetime=6)}
    test = schema.FinalTestSpec(seeds=1, sequences=8)
    return prepare(replace(recipe, outer=replace(recipe.outer, test=test, **online)))


def told(outcome: SearchOutcome) -> dict[str, Any]:
    """All numbers that were measured, of points and of the result, and the artefact's text."""
    lines = [
        (key, value)
        for line in outcome.folder.read_metrics()
        for key, value in sorted(line.items())
        if "seconds" not in key
    ]
    found = [lines, [outcome.artefact.result[key] for key in ("before", "after")]]
    leaves = [leaf for leaf in jax.tree.leaves(found) if isinstance(leaf, int | float)]
    text = (outcome.folder.artefact / "tuned.json").read_text()
    return {"numbers": np.asarray(leaves, np.float64).tolist(), "artefact": text}


def main(folder: Path, *others: str) -> None:
    """Prints what searches came to, after one on `BEGUN` that was interrupted in the middle.

    Args:
        folder: for their folders.
        others: numbers of devices that it goes on with, besides those that it was begun on.
    """
    console = Console(file=open(os.devnull, "w"))  # noqa: SIM115
    calls = iter(range(100))

    def interrupted(*args, **options):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return hypergradient(*args, **options)

    begun = training(BEGUN)
    with pytest.MonkeyPatch.context() as patch:
        draw_in_haste(patch)
        with patch.context() as stopping:
            stopping.setattr(hypergradients, "hypergradient", interrupted)
            assert fit(begun, folder / "begun", console=console).interrupted
        found = {"whole": told(fit(begun, folder / "whole", console=console))}
        for count in (str(VIRTUAL), *others):
            of = begun if count == str(VIRTUAL) else training(FEWER[count])
            shutil.copytree(folder / "begun", folder / count)
            found[count] = told(fit(of, folder / count, resume=True, console=console))
    print(json.dumps(found))


def asked(folder: Path, *others: str) -> dict[str, dict[str, Any]]:
    """What `main` prints in a process with eight devices."""
    # Threads for all collectives of all devices at once, as in tests/inner/test_devices.py.
    here = {"JAX_NUM_CPU_DEVICES": str(VIRTUAL), "NPROC": str(8 * VIRTUAL)}
    done = subprocess.run(
        [sys.executable, __file__, str(folder), *others],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **here},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.thorough
def test_a_search_goes_on_on_the_same_mesh_bit_for_bit_elsewhere_to_rounding(tmp_path):
    """That all it has kept comes back, bit for bit, `tests/inner/test_devices.py` shows."""
    found = asked(tmp_path, *FEWER)
    whole = found["whole"]
    assert found[str(VIRTUAL)] == whole
    for count in FEWER:
        assert found[count]["numbers"] != whole["numbers"]
        np.testing.assert_allclose(found[count]["numbers"], whole["numbers"], rtol=1e-5)


if __name__ == "__main__":
    gc.set_threshold(200_000)  # as in conftest.py
    main(Path(sys.argv[1]), *sys.argv[2:])
