#!/usr/bin/env bash
# JAX's persistent compilation cache writes an entry in place, and writes none where there is one. So
# an entry that was cut off (a kill, a full disk) stays: every later process warns that it can't be
# read, compiles the program again, and leaves the broken entry as it is, for ever.
#
#   seen (jax 0.10.2, CPU, CPython 3.11): three processes in a row compile and warn; the size of the
#   cut entry never changes. Deleting it by hand is the cure.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place/packages" "jax==0.10.2"
export PYTHONPATH="$place/packages" JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR="$place/cache" \
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
cat >"$place/run.py" <<'P'
import jax, jax.numpy as jnp, warnings

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))
print(sum("persistent compilation cache" in str(each.message) for each in said))
P
[[ $(python3 "$place/run.py") == 0 ]]
for entry in "$place"/cache/*-cache; do truncate -s -20 "$entry"; done
before=$(stat -c '%n %s' "$place"/cache/*-cache)
for round in 1 2 3; do
  warned=$(python3 "$place/run.py" 2>/dev/null)
  echo "process $round after the cut: $warned warnings"
  [[ $warned -gt 0 ]] || { echo "this has changed: cut entries are replaced" >&2; exit 1; }
done
[[ $before == "$(stat -c '%n %s' "$place"/cache/*-cache)" ]] || {
  echo "this has changed: cut entries are written again" >&2; exit 1; }
