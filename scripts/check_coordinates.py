#!/usr/bin/env python3
"""The coordinate check of the rules that carry schedules over: a table, and an exit code.

A model of 2 layers x 64 is trained for 5 steps at one rate, and models 1, 2, 4, 8 times as wide and
1, 2, 4 times as deep by each rule; for each the slope of the size of what moved, against the size
of the model, on logarithms. A rule that promises an axis must have slopes within 0.05 of zero
there; `none`, which promises nothing, must not.

usage: check_coordinates.py [--rules none mup ...] [--optimizer muon+adamw] [--model qwen3_moe]
                            [--seeds 4] [--sequences 2]
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from metatune.fit.process.compilation import keep_compiled
from metatune.recipe import schema
from metatune.transfer import RULES
from metatune.transfer.coordinates import FLAT, Check, slopes
from metatune.transfer.rules.rule import Axis

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 16,
    "initializer_range": 0.005,
}
"""So narrow a model has its limit's behaviour only where its branches begin small, which the
standard deviation of its fresh numbers makes them."""
EXPERTS = {
    **CONFIG,
    "model_type": "qwen3_moe",
    "head_dim": 16,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}
MODELS = {"llama": CONFIG, "qwen3_moe": EXPERTS}
SMALL: Final[Mapping[str, Any]] = {"learning_rate": 2e-4, "weight_decay": 0.0}
HIDDEN = r"layers\..*(proj|gate)\.weight"
OPTIMIZERS: Mapping[str, schema.InnerOptimizerSpec] = {
    "adamw": schema.AdamWSpec(**SMALL, clip_norm=None),
    "muon": schema.MuonSpec(**SMALL),
    "muon+adamw": schema.GroupsSpec(
        (
            schema.MuonGroupSpec(learning_rate=4e-4, weight_decay=0.0, match=HIDDEN),
            schema.AdamWGroupSpec(**SMALL),
        ),
        clip_norm=None,
    ),
    "normuon": schema.NorMuonSpec(**SMALL),
    "adamh": schema.AdamHSpec(learning_rate=1e-2, clip_norm=None),
    "muonh": schema.MuonHSpec(learning_rate=1e-2, clip_norm=None),
}
AXES: dict[Axis, tuple[int, ...]] = {"width": (1, 2, 4, 8), "depth": (1, 2, 4)}
STEPS, LENGTH = 5, 9


def main() -> int:
    """Prints a row for each rule, axis and activation as it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adamw")
    parser.add_argument("--model", choices=list(MODELS), default="llama")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=2, help=f"of {LENGTH - 1} tokens each")
    options = parser.parse_args()
    keep_compiled()
    batch = np.random.default_rng(0).integers(
        0, CONFIG["vocab_size"], (1, options.sequences, LENGTH)
    )
    batches = np.repeat(batch, STEPS, axis=0)
    print(
        "| rule | along | what moved | by how much | slope | promised |\n|---|---|---|---|---|---|"
    )
    wrong = 0
    for name in options.rules:
        for axis, times in AXES.items():
            check = Check(MODELS[options.model], name, OPTIMIZERS[options.optimizer])
            promised = axis in RULES[name].promises
            for what, found in slopes(check, axis, times, batches, range(options.seeds)).items():
                moved = ", ".join(f"{move:.3g}" for move in found.moves)
                said = f"within {FLAT}" if promised else ""
                print(
                    f"| {name} | {axis} | {what} | {moved} | {found.slope:+.3f} | {said} |",
                    flush=True,
                )
                wrong += promised and not found.flat
                wrong += name == "none" and found.flat
    print(f"{wrong} wrong" if wrong else "all as promised")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
