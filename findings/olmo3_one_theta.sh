#!/usr/bin/env bash
# A configuration in the form before version 5 gives one `rope_theta` for all layers. OLMo 3's layers
# are of two kinds, and its class asks for that field once for each, by taking it out: the layers with
# full attention, which are asked for first, get it, and those with a sliding window, three of four,
# the default of 500,000 without a word. Saved again, the file names two bases, so that it stays so.
# Gemma 3, whose layers are of two kinds as well, has a field of its own for each.
#
#   seen (transformers 5.24.0): rope_theta 10000 becomes full_attention 10000, sliding_attention 500000
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" "transformers==5.24.0"
PYTHONPATH="$place" python3 - <<'P'
import json
import tempfile
from pathlib import Path

from transformers import AutoConfig

file = {"model_type": "olmo3", "num_hidden_layers": 4, "rope_theta": 10_000.0}
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "config.json").write_text(json.dumps(file))
    found = AutoConfig.from_pretrained(folder)
    found.save_pretrained(folder)
    again = json.loads(Path(folder, "config.json").read_text())
thetas = {kind: each["rope_theta"] for kind, each in found.rope_parameters.items()}
print(found.layer_types.count("sliding_attention"), "of 4 layers with a window;", thetas)
assert thetas == {"full_attention": 10_000.0, "sliding_attention": 500_000.0}, "this has changed"
saved = {kind: each["rope_theta"] for kind, each in again["rope_parameters"].items()}
assert saved == thetas and "rope_theta" not in again, "this has changed"
P
