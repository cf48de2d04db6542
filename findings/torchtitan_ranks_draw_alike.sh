#!/usr/bin/env bash
# torchtitan's loader of weighted sources seeds the draw of a source with its `seed` alone, the same
# on every data-parallel rank: all ranks draw the same sources at the same places. With a sequence
# a rank, each batch of the whole training is of one source; however many ranks there are, the shares
# of a batch scatter as those of one rank's sequences do.
#
#   seen (torchtitan 0.3.0, weights 1 and 1, a sequence a rank and update): of 64 batches over 8 ranks
#   all 64 hold one source alone; draws that differ by rank would leave 0 or 1 such batch
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" "torchtitan==0.3.0" "torch==2.13.0"
cat > "$place/draws.py" <<'P'
import json
import pathlib
import tempfile

from datasets import load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import (
    DATASETS,
    HFDataSource,
    InterleavedHuggingFaceTextDataLoader,
)

RANKS, UPDATES, TOKENS = 8, 64, {"left": 2, "right": 3}


class Words:
    """A document of seven tokens."""

    def encode(self, text, add_bos=True, add_eos=True):
        return [0] + [TOKENS[text]] * 7 + [1]


folder = pathlib.Path(tempfile.mkdtemp())
for name in TOKENS:
    (folder / name).write_text((json.dumps({"text": name}) + "\n") * 200)
    DATASETS[name] = DatasetConfig(
        path=str(folder / name),
        loader=lambda path: load_dataset("json", data_files=path, split="train"),
        sample_processor=lambda sample: sample["text"],
    )
config = InterleavedHuggingFaceTextDataLoader.Config(
    sources=[HFDataSource(dataset=name, weight=1.0) for name in TOKENS]
)
drawn = []
for rank in range(RANKS):
    loader = config.build(
        dp_world_size=RANKS, dp_rank=rank, tokenizer=Words(), seq_len=8, local_batch_size=1
    )
    batches = iter(loader)
    drawn.append([int(next(batches)[0]["input"].max()) for _ in range(UPDATES)])
alone = sum(len(set(batch)) == 1 for batch in zip(*drawn))
print(f"of {UPDATES} batches over {RANKS} ranks {alone} hold one source alone")
assert len(set(drawn[0])) == 2, "each rank draws from both"
assert alone == UPDATES, "this has changed"
P
HF_HOME="$place/hf" PYTHONPATH="$place" python3 -W ignore "$place/draws.py"
