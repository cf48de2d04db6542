#!/usr/bin/env bash
# datasets 5 reads JSON lines whose nested records have different keys (tool calls, say) as
# `List(Json)`, and gives them back as they were, without the nulls of earlier releases. Written to
# Parquet, the column is of Arrow's extension type `arrow.json`, and every other reader of the file
# (pyarrow, and what stands on it) gets a text for each record: a chat template that loops over the
# tools' names then sees characters. datasets itself reads its own file back right, with or without
# the features in the file's metadata.
#
#   seen (datasets 5.2.0, pyarrow 26.0.1): dicts from datasets, strings from pyarrow.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place/packages" \
  "datasets==5.2.0" "pyarrow==26.0.1"
export PYTHONPATH="$place/packages" HF_HOME="$place/home" HF_HUB_OFFLINE=1
cat >"$place/run.py" <<'P'
import json
import sys
from pathlib import Path

import datasets
import pyarrow.parquet

place = Path(sys.argv[1])
rows = [{"tools": [{"name": "add", "x": 1}, {"name": "find", "where": "here"}]}, {"tools": []}]
(place / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
options = {"split": "train", "cache_dir": str(place / "cache")}
held = datasets.load_dataset("json", data_files=str(place / "rows.jsonl"), **options)
held.to_parquet(str(place / "rows.parquet"))
again = datasets.load_dataset("parquet", data_files=str(place / "rows.parquet"), **options)
table = pyarrow.parquet.read_table(place / "rows.parquet")
bare = place / "bare.parquet"
pyarrow.parquet.write_table(table.replace_schema_metadata(None), bare)
stripped = datasets.load_dataset("parquet", data_files=str(bare), **options)[0]["tools"][0]
seen = {
    "datasets, from JSON lines": held[0]["tools"][0],
    "datasets, from its Parquet": again[0]["tools"][0],
    "pyarrow, from that Parquet": table.to_pylist()[0]["tools"][0],
    "datasets, without its metadata": stripped,
}
for name, record in seen.items():
    print(f"{name}: {record!r}")
sys.exit([type(record) for record in seen.values()] != [dict, dict, str, dict])
P
python3 "$place/run.py" "$place" 2>/dev/null || { echo "this has changed" >&2; exit 1; }
