#!/usr/bin/env python3
"""What data cost: tokenizing and caching, memory, and the reading of batches from the cache.

Generates a corpus of JSON lines from the shipped texts (random stretches of about 2000 characters),
then tokenizes and reads it, for each tokenizer in a process of its own: memory is the most that the
process ever had, which counts pages of mapped files too; `anonymous` is without them. CPU time (of
all threads) is the one to compare on a machine that does other work too.

usage: bench_data.py [TOKENIZER ...] [--megabytes N] [--folder F]     # a folder, a hub id, or bytes
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from metatune.data import SHIPPED, load, sampled_batches, shipped_text, tokenizer
from metatune.recipe.schema import DataSpec, SourceSpec

MIB = 2**20
DOCUMENT = 2000  # characters in the mean
SEQUENCE, BATCH, STEPS = 1024, 32, 500


def generate(path: Path, size: int) -> None:
    """Writes JSON lines that hold `size` bytes of text."""
    random = np.random.default_rng(0)
    texts = [shipped_text(name) for name in SHIPPED]
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            text = texts[random.integers(len(texts))]
            start = int(random.integers(len(text) - 2 * DOCUMENT))
            piece = text[start : start + int(random.integers(1, 2 * DOCUMENT))]
            file.write(json.dumps({"text": piece}, ensure_ascii=False) + "\n")
            written += len(piece.encode("utf-8"))


def anonymous() -> int:
    """Memory of this process that belongs to no file, bytes; Linux only."""
    line = next(x for x in open("/proc/self/status") if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def measure(name: str, corpus: Path, cache: Path) -> dict[str, float]:
    """One tokenizer, in this process."""
    os.environ["METATUNE_CACHE"] = str(cache)
    encoder, most, stop = tokenizer(name), [0], threading.Event()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def watch() -> None:
        while not stop.wait(0.05):
            most[0] = max(most[0], anonymous())

    threading.Thread(target=watch, daemon=True).start()
    data = DataSpec(
        {"corpus": SourceSpec(jsonl=str(corpus))}, {"corpus": 1.0}, SEQUENCE, BATCH, name
    )
    began, cpu = time.perf_counter(), time.process_time()
    held = load(data, encoder)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    began = time.perf_counter()
    load(data, encoder)
    again = time.perf_counter() - began
    stop.set()
    shares = np.ones((STEPS, 1))
    batch = sampled_batches(held, seed=(0,), batch_size=BATCH, shares=shares)
    batch(0)
    reading, reading_cpu = time.perf_counter(), time.process_time()
    for step in range(STEPS):
        batch(step)
    reading, reading_cpu = time.perf_counter() - reading, time.process_time() - reading_cpu
    its = held.statistics["corpus"]
    return {
        "MB": its.bytes / 1e6,
        "bytes/token": its.bytes_per_token,
        "MB/s": its.bytes / 1e6 / wall,
        "MB/CPU s": its.bytes / 1e6 / cpu,
        "again, s": again,
        "MiB before": before / MIB,
        "MiB peak": after / MIB,
        "MiB anonymous": most[0] / MIB,
        "Mtokens/s": STEPS * BATCH * SEQUENCE / 1e6 / reading,
        "Mtokens/CPU s": STEPS * BATCH * SEQUENCE / 1e6 / reading_cpu,
    }


def main() -> None:
    """Measures and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tokenizers", nargs="*", default=["bytes"], help="folders, ids or bytes")
    parser.add_argument("--megabytes", type=float, default=100, help="of text")
    parser.add_argument("--folder", help="for corpus and cache, which are deleted again")
    given = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        corpus = Path(folder) / "corpus.jsonl"
        generate(corpus, int(given.megabytes * 1e6))
        for name in given.tokenizers:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                rows[name] = pool.submit(measure, name, corpus, Path(folder) / "cache").result()
    heads = list(next(iter(rows.values())))
    print(f"| tokenizer | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name, row in rows.items():
        cells = (f"{row[head]:,.{1 if row[head] < 100 else 0}f}" for head in heads)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
