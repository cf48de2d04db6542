#!/usr/bin/env bash
# multihost_utils.process_allgather takes any NumPy array and gives NumPy arrays back. In one process they
# are those that were given. In two they have been on a device, and where 64 bits are off, as is usual, a
# count of tokens above two billion comes back negative, seconds since 1970 to the minute, without a
# warning; broadcast_one_to_all does the same with a seed. assert_equal compares what was sent with what
# one has: equal counts of that size on all processes are said to differ.
#
#   seen (jax 0.10.2, CPU, Gloo), of 3000000000 and 1099511627781 as int64, and 1790000000.5 as float64:
#     one process                 int64 3000000000 1099511627781, float64 1790000000.5, equal
#     two                         int32 -1294967296 5, float32 1790000000.0, "not equal"
#     two, JAX_ENABLE_X64=1       as one
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" "jax==0.10.2"
cat >"$place/gather.py" <<'P'
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

count, me, port = map(int, sys.argv[1:])
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, me)
numbers = np.array([3_000_000_000, 2**40 + 5], np.int64)
gathered = np.atleast_2d(multihost_utils.process_allgather(numbers))[0]
sent = np.asarray(multihost_utils.broadcast_one_to_all(numbers))
time = np.asarray(multihost_utils.process_allgather(np.array([1790000000.5]))).reshape(-1)[0]
try:
    multihost_utils.assert_equal(numbers, "counts")
    equal = "passes"
except AssertionError:
    equal = "raises"
if me == 0:
    print(gathered.dtype, *gathered, sent.dtype, *sent, time.dtype, float(time), equal)
P
run() { # processes
  local port me
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
  for ((me = 1; me < $1; me++)); do
    PYTHONPATH="$place" JAX_PLATFORMS=cpu python3 "$place/gather.py" "$1" "$me" "$port" >/dev/null 2>&1 &
  done
  PYTHONPATH="$place" JAX_PLATFORMS=cpu python3 "$place/gather.py" "$1" 0 "$port" 2>/dev/null | tail -n 1
  wait
}
expect() { # what, found, expected
  echo "$1: $2"
  [[ "$2" == "$3" ]] || { echo "this has changed; it was: $3"; exit 1; }
}
exact="int64 3000000000 1099511627781 int64 3000000000 1099511627781 float64 1790000000.5 passes"
expect "one process" "$(run 1)" "$exact"
expect "two" "$(run 2)" \
  "int32 -1294967296 5 int32 -1294967296 5 float32 1790000000.0 raises"
expect "two, 64 bits on" "$(JAX_ENABLE_X64=1 run 2)" "$exact"
