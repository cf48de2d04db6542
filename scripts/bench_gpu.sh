#!/usr/bin/env bash
# The comparison of `metatune bench`, and a larger model, on whatever device JAX finds.
# Needs a Python with jax, flax, optax and safetensors; no data, no network, nothing installed.
#
# Larger: 124M parameters (the size of GPT-2 small), Adam, a weight for each example, 16 inner steps
# of 64 x 128 and of 64 x 256 tokens. Each of its variants runs in a process of its own, so that the
# device's own peak (`device_peak_bytes` in the JSON) is that variant's.
#
# usage: scripts/bench_gpu.sh [OUT]    (a folder for the JSON files and pictures; default bench-gpu)
#        PYTHON=... chooses the Python, METATUNE_BENCH_SMALL=1 a small model, to try the script out
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="${1:-bench-gpu}"
python="${PYTHON:-python3}"
export PYTHONPATH=app:models:data
mkdir -p "$out"

missing="$("$python" -c '
import importlib.util
needed = ("jax", "flax", "optax", "safetensors")
print(*(name for name in needed if importlib.util.find_spec(name) is None))')"
if [[ -n $missing ]]; then
  echo "error: $python lacks: $missing; install them, or name another Python in PYTHON" >&2
  exit 2
fi
"$python" - <<'END'
import jax

device = jax.devices()[0]
limit = (device.memory_stats() or {}).get("bytes_limit", "an unknown number of")
print(f"{device.device_kind}, {limit} bytes; jax {jax.__version__}")
END

small=(5.3M 46.9M 71.3M) large=124M vary=()
if [[ -n ${METATUNE_BENCH_SMALL:-} ]]; then
  small=(0.5M) large=0.5M vary=(batch=2 steps=2)
fi

bench() {
  "$python" scripts/reproduce_mixflow.py "$@"
}

# What fails (the analysis may call fitting what doesn't) leaves the others alone.
failed=""
for size in "${small[@]}"; do
  bench --sizes "$size" --time --json "$out/$size.json" --picture "$out/$size.svg" ||
    failed+=" $size;"
done
bench --sizes "${small[0]}" --vary layers=6,24 "${vary[@]}" --variants reverse \
  mixflow+remat+chunks+saved --json "$out/layers.json" || failed+=" layers;"

for sequence in 128 256; do
  for variant in mixflow+remat+chunks+saved mixflow+remat+saved reverse+remat+chunks reverse; do
    bench --sizes "$large" --vary "sequence=$sequence" "${vary[@]}" --variants "$variant" --time \
      --json "$out/$large-$sequence-$variant.json" || failed+=" $variant at $sequence;"
  done
done

"$python" - "$out" "$large" <<'END'
import json, pathlib, sys

print(f"{'variant':28} {'sequence':>8} {'s':>8} {'GB, analysis':>13} {'GB, device peak':>16}")
for path in sorted(pathlib.Path(sys.argv[1]).glob(f"{sys.argv[2]}-*.json")):
    (row,) = json.loads(path.read_text())["rows"]
    seconds = f"{row['seconds']:.2f}" if row["seconds"] else "-"
    peak = f"{row['device_peak_bytes'] / 1e9:.1f}" if row["device_peak_bytes"] else "-"
    analysis = (row["temp_bytes"] + row["arguments_bytes"]) / 1e9
    print(f"{row['variant']:28} {row['sequence']:8} {seconds:>8} {analysis:13.1f} {peak:>16}")
    if row["untimed"]:
        print(f"  not timed: {row['untimed']}")
END
if [[ -n $failed ]]; then
  echo "failed:$failed" >&2
  exit 1
fi
