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
from metatune.inner import prepare
from metatune.inner.training import InnerTraining
from metatune.recipe import schema

VIRTUAL = 8
BEGUN = {"one": (4, 2, 1, 1), "population": (2, 2, 1, 2)}
FEWER = {"4": (2, 2, 1, 1), "1": (1, 1, 1, 1)}


def training(of: str, mesh: tuple[int, int, int, int]) -> InnerTraining:
    """One of a search whose inner training, on the mesh, goes on from outer step to outer step.

    Of a population both do, at other ages: one that is under way at first.
    """
    recipe = tiny(
        data={"batch_size": VIRTUAL},
        inner={"optimizer": schema.AdamWSpec(learning_rate=1e-2, eps_root=1e-5)},
        devices=schema.DevicesSpec(*mesh),
    )
    online = {"steps": 2, "unroll": schema.OnlineSpec(window=4, lifetime=6)}
    if of == "population":
        online |= {"population": schema.PopulationSpec(members=2)}
        online |= {"unroll": schema.OnlineSpec(window=2, lifetime=4), "steps": 3}
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


def main(folder: Path, of: str, *others: str) -> None:
    """Prints what searches came to, after one on `BEGUN` that was interrupted in the middle.

    Args:
        folder: for their folders.
        of: one training, or a population.
        others: numbers of devices that it goes on with, besides those that it was begun on.
    """
    console = Console(file=open(os.devnull, "w"))  # noqa: SIM115
    calls = iter(range(100))

    name = "hypergradients" if of == "population" else "hypergradient"
    estimate = getattr(hypergradients, name)

    def interrupted(*args, **options):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return estimate(*args, **options)

    begun = training(of, BEGUN[of])
    with pytest.MonkeyPatch.context() as patch:
        draw_in_haste(patch)
        with patch.context() as stopping:
            stopping.setattr(hypergradients, name, interrupted)
            assert fit(begun, folder / "begun", console=console).interrupted
        found = {"whole": told(fit(begun, folder / "whole", console=console))}
        for count in (str(VIRTUAL), *others):
            there = begun if count == str(VIRTUAL) else training(of, FEWER[count])
            shutil.copytree(folder / "begun", folder / count)
            found[count] = told(fit(there, folder / count, resume=True, console=console))
    print(json.dumps(found))


def asked(folder: Path, of: str, *others: str) -> dict[str, dict[str, Any]]:
    """What `main` prints in a process with eight devices."""
    # Threads for all collectives of all devices at once, as in tests/inner/test_devices.py.
    here = {"JAX_NUM_CPU_DEVICES": str(VIRTUAL), "NPROC": str(8 * VIRTUAL)}
    done = subprocess.run(
        [sys.executable, __file__, str(folder), of, *others],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **here},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.thorough
@pytest.mark.parametrize(("of", "fewer"), [("one", ["4", "1"]), ("population", ["1"])])
def test_a_search_goes_on_on_the_same_mesh_bit_for_bit_elsewhere_to_rounding(tmp_path, of, fewer):
    """That all it has kept comes back, bit for bit, `tests/inner/test_devices.py` shows."""
    found = asked(tmp_path, of, *fewer)
    whole = found["whole"]
    assert found[str(VIRTUAL)] == whole
    for count in fewer:
        assert found[count]["numbers"] != whole["numbers"]
        np.testing.assert_allclose(found[count]["numbers"], whole["numbers"], rtol=1e-5)


if __name__ == "__main__":
    gc.set_threshold(200_000)  # as in conftest.py
    main(Path(sys.argv[1]), *sys.argv[2:])
