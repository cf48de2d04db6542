"""Runs to make pages of: what there is on disk, and what commands would have added."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metatune import artefact
from metatune.artefact import (
    Artefact,
    LearningRates,
    LossWeights,
    Mixture,
    Multipliers,
    Optimizer,
    Origin,
)
from metatune.report.html import Sources

STORED = Path(__file__).parents[2] / "artefact/stored"
UNIT = "nats per byte"
NASTY = "</script><script>alert('x')</script><b>&amp; %{y} $x$"
"""A name that is all that a page must not take it for."""

RESULT: dict[str, Any] = {
    "status": "complete",
    "unit": UNIT,
    "objective_before": 2.52,
    "objective_after": 2.20,
    "difference": -0.32,
    "standard_error": 0.01,
    "held_out_seeds": [0, 1, 2, 3, 4],
    "before": [2.50, 2.51, 2.52, 2.53, 2.54],
    "after": [2.20, 2.19, 2.21, 2.18, 2.22],
    "best_outer_step": 2,
    "outer_steps": 3,
}
METRICS = [
    {
        "step": step,
        "phase": 0,
        "inner_steps": 12,
        "objective": 2.6 - 0.1 * step,
        "hypergradient_norm": {"learning_rates": 0.06, "mixture": 0.05},
        "held_out": 2.55 - 0.1 * step,
        "held_out_each": [2.5 - 0.1 * step, 2.6 - 0.1 * step],
        "best_held_out": 2.55 - 0.1 * step,
        "seconds": 5.0 + 4 * (step == 0),
    }
    for step in range(3)
] + [{"step": 3, "phase": 0, "held_out": 2.3, "best_held_out": 2.3, "seconds": 1.0}]
EXPECTED = {
    "expected": {"device_bytes": 2**28, "outer_step_seconds": 4.0, "run_seconds": 25.0},
    "measured": {"outer_step_seconds": 5.0, "process_bytes": 2**29},
}


def behind(mean: float, half: float, settled: bool = True) -> dict[str, Any]:
    ends = {"low": mean - half, "high": mean + half}
    return {"mean": mean, "error": half / 3, **ends, "p": 0.01, "seeds": 5, "settled": settled}


def rival(name: str, mean: float, cost: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "summary": "what it tries",
        "words": "cosine, rate ×2, code alone",
        "trainings": 10,
        "inner_steps": cost,
        "gradients": cost,
        "losses": [2.2 + mean] * 5,
        "course": [[100, 2.6], [cost // 2, 2.3 + mean / 10]],
        "behind_tuned": behind(mean, 0.02),
        **more,
    }


VERDICT: dict[str, Any] = {
    "word": "use it",
    "sentence": "use it; it is better than the default and than each contestant",
    "unit": UNIT,
    "seeds": 5,
    "budget": 4000,
    "tuned": {
        "losses": [2.2] * 5,
        "inner_steps": 4000,
        "gradients": 6600.0,
        "course": [[200, 2.55], [3700, 2.21]],
    },
    "default": {"losses": [2.52] * 5},
    "gain": behind(0.32, 0.03),
    "rivals": [
        rival("tpe", 0.087, 4000),
        rival("grid", 0.097, 3900),
        rival("random", 0.01, 4000, behind_tuned=behind(0.01, 0.02, settled=False)),
        rival(
            "prodigy",
            9.0,
            4000,
            losses=[None] * 5,
            behind_tuned={**behind(0, 0), "mean": None, "low": None, "high": None},
        ),
        {
            "name": NASTY,
            "summary": "another",
            "losses": [2.3] * 5,
            "behind_tuned": behind(0.1, 0.03),
        },
    ],
    "refused": [{"name": "regression", "why": "no mixture is tuned"}],
    "parts": {
        "gain": behind(0.3, 0.02),
        "variants": [
            {"name": name, "lost": behind(mean, 0.02), "share": mean / 0.3}
            for name, mean in (
                ("learning_rates alone", 0.19),
                ("mixture alone", 0.25),
                ("learning_rates, window 1 of 5 set back", 0.01),
                ("learning_rates of post_attention_layernorm and others set back", 0.1),
            )
        ],
    },
    "simple": {"words": "30 factors in 6 clusters", "kept": 0.93},
}

CERTIFICATE: dict[str, Any] = {
    "verdict": "amber",
    "causes": ["too few seeds"],
    "checks": {
        "differences": {
            "level": "green",
            "sign_agreement": 1.0,
            "resolved": 2,
            "spearman": 1.0,
            "relative_error": 0.01,
            "relative_noise": 0.02,
            "rows": [
                {
                    "name": name,
                    "estimator": value,
                    "error": 0.01,
                    "difference": value * 1.05,
                    "noise": 0.02,
                    "epsilon": 1e-2,
                }
                for name, value in (("the hypergradient", 0.5), (NASTY, -0.2))
            ],
        },
        "linearity": {"level": "amber", "left": 0.5, "step": 0.1},
    },
}

TRANSFER: dict[str, Any] = {
    "verdict": "the gain survives at the largest rung",
    "rule": "complete_d_p",
    "unit": UNIT,
    "seeds": 3,
    "rungs": [
        {
            "name": name,
            "parameters": 133824 * times,
            "steps": 100,
            "operations": 1.2e11 * times,
            "gain": {"mean": 0.3, "low": 0.2, "high": 0.4},
            "over_best": {"mean": 0.1, "low": 0.0, "high": 0.2},
            "retention": 1.0,
            "predicted": predicted,
        }
        for name, times, predicted in (
            ("proxy", 1, None),
            ("width x2", 4, {"gain": 0.28, "low": 0.1, "high": 0.5, "holds": True}),
        )
    ],
    "farther": [
        {
            "times": 64.0,
            "operations": 3e13,
            "gain": 0.2,
            "low": -1.0,
            "high": 1.5,
            "line": True,
            "at": NASTY,
            "steps": 1000,
            "made": "2026-01-01",
        }
    ],
}


def deep(layers: int = 32, windows: int = 5, steps: int = 100) -> Artefact:
    """Rates by tensor of many layers, a mixture with a nasty domain, and all that can be beside."""
    modules = [
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
        "input_layernorm",
        "post_attention_layernorm",
    ]
    names = [f"model.layers.{at}.{module}.weight" for at in range(layers) for module in modules]
    names += ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    knots = tuple(window / windows for window in range(windows))
    factors = np.exp2(np.random.default_rng(0).uniform(-2, 2, (len(names), windows)).round(2))
    base = 1e-3 * np.linspace(1, 0.1, steps)
    window = np.arange(steps) * windows // steps
    rates = {name: base * row[window] for name, row in zip(names, factors, strict=True)}
    groups = {name: tuple(float(v) for v in row) for name, row in zip(names, factors, strict=True)}
    members = {name: (name,) for name in names}
    domains, shares = ("code", NASTY, "prose"), np.array([[0.2, 0.3, 0.5], [0.7, 0.1, 0.2]])
    training = {"seed": 0, "steps": [0, 5, 10], "losses": [5.0, 3.0, 2.5]}
    training["default_losses"] = [5.0, 3.5, 2.9]
    return Artefact(
        steps,
        512 * steps,
        LearningRates(
            tuple(step / steps for step in range(steps)),
            "constant",
            rates,
            Multipliers(knots, groups, members),
        ),
        Mixture((0.0, 0.5), "constant", domains, shares),
        LossWeights((0.0, 0.5), "constant", domains, 3 * shares),
        Optimizer({"kind": "adamw"}, ()),
        {"metatune": "0.1.0", "target": {NASTY: 1.0}},
        RESULT,
        CERTIFICATE,
        Origin("", {}, {"machine": {"device": "cpu"}, "training": training}),
        transfer=TRANSFER,
        verdict=VERDICT,
    )


def whole(layers: int = 32) -> Sources:
    """A run of which there is everything."""
    return Sources("deep", "runs/deep", deep(layers), METRICS, EXPECTED, is_run=True)


def stored(name: str, **result: Any) -> Sources:
    """A stored artefact, as if it were of a run."""
    tuned = artefact.load(STORED / name)
    tuned = replace(tuned, result={**tuned.result, **result})
    return Sources(name, f"runs/{name}", tuned, METRICS, None, is_run=True)
