"""Tries what a user does first: help, a tiny fit, its result, two exports; and hypergradients.

With the metatune of the Python that runs it; `scripts/smoke` sets one up. Takes about a minute, and
writes to a folder that it removes.

usage: PYTHON scripts/smoke.py
"""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

STEPS = 10
TINY = f"""
model.config.hidden_size=16 model.config.intermediate_size=32 model.config.num_hidden_layers=1
data.sequence_length=32 data.batch_size=4 inner.steps={STEPS} outer.steps=2 outer.test.seeds=2
""".split()


def metatune(*arguments: str) -> str:
    """What the command prints; it must succeed."""
    command = Path(sysconfig.get_path("scripts")) / "metatune"
    done = subprocess.run([command, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"metatune {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def all_of_it_is_installed() -> None:
    """Nothing is of a checkout, and nothing that only a checkout needs came along."""
    import metatune

    first, *others = [Path(root).resolve() for root in metatune.__path__]
    assert first == Path(sysconfig.get_path("purelib"), "metatune").resolve(), first
    # Beside borrowed packages an editable install has its recipes, and no code.
    assert not any(list(root.rglob("*.py")) for root in others), others
    held = {str(file) for file in importlib.metadata.files("metatune") or ()}
    for name in ("recipes/quickstart.yaml", "artefact/schema.json", "cli/fit.py"):
        assert f"metatune/{name}" in held, name
    assert any(name.endswith("licenses/NOTICE") for name in held)
    foreign = {name.split("/")[0] for name in held} - {"..", "metatune"}
    assert all(name.endswith(".dist-info") for name in foreign), foreign


def the_help_names_the_commands() -> None:
    text = metatune("--help")
    assert all(command in text for command in ("fit", "show", "export", "train", "plan"))


def a_recipe_is_tuned_and_shown() -> None:
    metatune("fit", "quickstart", "--out", "run", *TINY)
    shown = metatune("show", "run")
    assert "learning rates" in shown and "mixture" in shown, shown
    metatune("report", "run")
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert '"learning-rates-curves"' in page and "Plotly.newPlot" in page


def exports_say_the_same() -> None:
    """The rate of each parameter at each update, of optax's schedules and of the JSON."""
    import numpy as np

    for target in ("json", "optax"):
        metatune("export", "run", "--to", target, "--out", target)
    rates = json.loads(Path("json/tuned.json").read_text(encoding="utf-8"))["learning_rates"]
    at = [np.searchsorted(rates["knots"], t / STEPS + 1e-9, "right") - 1 for t in range(STEPS)]
    spec = importlib.util.spec_from_file_location("exported", "optax/metatune_schedules.py")
    assert spec and spec.loader and rates["interpolation"] == "constant"
    exported = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(exported)
    schedules = exported.schedules(STEPS)
    assert len(schedules) > 5
    for name, schedule in schedules.items():
        found = [float(schedule(step)) for step in range(STEPS)]
        np.testing.assert_allclose(found, np.array(rates["parameters"][name])[at], rtol=1e-6)


def hypergradients_are_those_of_a_closed_form() -> None:
    """Descent on Σ a_i θ_i² / 2 at the rates λ_t = exp η_t: θ_T = θ_0 Π_t (1 - a λ_t)."""
    import jax
    import numpy as np

    from metatune.hypergrad import Forward, MixFlow, Problem, Reverse, State, hypergradient

    curvature, start, goal = np.array([0.5, 1.0, 2.0]), np.array([1.0, -2.0, 0.5]), 0.3
    eta = np.log([0.1, 0.3, 0.2, 0.4, 0.05, 0.2, 0.1])
    with jax.enable_x64(True):
        problem = Problem(
            lambda params, hyper, batch: (batch * params**2).sum() / 2,
            lambda grads, state, params, hyper: (params - hyper * grads, state),
            lambda params, batch: ((params - batch) ** 2).sum() / 2,
            lambda eta, step: jax.numpy.exp(eta[step]),
        )
        factors = 1 - np.exp(eta)[:, None] * curvature
        end = start * factors.prod(axis=0)
        slopes = end / factors * (-np.exp(eta)[:, None] * curvature)  # of θ_T by η_t
        want = slopes @ (end - goal)
        for estimator in (MixFlow(3), Reverse(3), Forward(3)):
            found = hypergradient(
                problem,
                jax.numpy.asarray(eta),
                State(jax.numpy.asarray(start), ()),
                lambda step: curvature,
                [goal * np.ones(3)],
                steps=len(eta),
                estimator=estimator,
            )
            np.testing.assert_allclose(found.gradient, want, rtol=1e-11, err_msg=str(estimator))
            np.testing.assert_allclose(found.value, ((end - goal) ** 2).sum() / 2, rtol=1e-11)


CHECKS = (
    all_of_it_is_installed,
    the_help_names_the_commands,
    a_recipe_is_tuned_and_shown,
    exports_say_the_same,
    hypergradients_are_those_of_a_closed_form,
)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
        os.environ["METATUNE_CACHE"] = f"{folder}/cache"
        for check in CHECKS:
            began = time.perf_counter()
            check()
            seconds = time.perf_counter() - began
            print(f"  {check.__name__.replace('_', ' ')} ({seconds:.0f} s)", flush=True)
