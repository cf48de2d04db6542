#!/usr/bin/env bash
# A run that was stopped at step 5 and goes on from step 3 writes steps 3 to 5 twice. TensorBoard's
# own page drops the first of them, text and scalars alike. `EventAccumulator`, which scripts read
# event files with, drops the scalars and keeps the tensors: texts, pictures and histograms of
# summaries of version 2 come back twice for a step, in two versions, and out of order.
#
#   seen (tensorboard 2.21.0): scalars 0..7 once each; texts 0 1 2 3 4 5 3 4 5 6 7; the page's own
#   reader (`plugin_event_accumulator`) gives both once. Who counts or takes the first text of a
#   step reads what the stopped process wrote.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place/packages" "tensorboard==2.21.0"
export PYTHONPATH="$place/packages"
cat >"$place/run.py" <<'P'
import sys
import time

from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.text import metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

folder = sys.argv[1]
Value = summary_pb2.Summary.Value


def write(first, end, word):
    writer = EventFileWriter(folder)
    started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    writer.add_event(event_pb2.Event(step=first, wall_time=time.time(), session_log=started))
    for step in range(first, end):
        text = tensor_util.make_tensor_proto(f"{word} {step}".encode())
        about = metadata.create_summary_metadata("", "")
        values = [
            Value(tag="scalar", simple_value=float(step)),
            Value(tag="text", tensor=text, metadata=about),
        ]
        summary = summary_pb2.Summary(value=values)
        writer.add_event(event_pb2.Event(step=step, wall_time=time.time(), summary=summary))
    writer.close()
    time.sleep(1.1)  # files are read in the order of their seconds


write(0, 6, "before")
write(3, 8, "after")
scripts = event_accumulator.EventAccumulator(folder, size_guidance={"tensors": 0})  # all of them
page = plugin_event_accumulator.EventAccumulator(folder)
scripts.Reload()
page.Reload()
once, twice = list(range(8)), [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7]
found = {
    "scalars, for scripts": ([each.step for each in scripts.Scalars("scalar")], once),
    "texts, for scripts": ([each.step for each in scripts.Tensors("text")], twice),
    "texts, on the page": ([each.step for each in page.Tensors("text")], once),
}
for name, (steps, _) in found.items():
    print(name, *steps)
sys.exit(any(steps != seen for steps, seen in found.values()))
P
python3 "$place/run.py" "$place/events" 2>/dev/null || { echo "this has changed" >&2; exit 1; }
