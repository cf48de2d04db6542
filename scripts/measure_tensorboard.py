#!/usr/bin/env python3
"""Asks a browser how large TensorBoard shows pictures at first, and how high text is then.

Needs the extra `test`, and a Chromium in PATH or as METATUNE_CHROMIUM.

usage: measure_tensorboard.py RUN [--screenshots FOLDER]
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

from metatune.report.pictures.thumbnails import FONT, HEIGHT, SHOWN, WIDTH

PAGES = {"images": "images", "time series": "timeseries"}
PATIENCE = 60  # seconds
SETTLED = 4000  # ms, after which a page has loaded its pictures

SIZES = """() => {
  const found = [];
  const walk = root => root.querySelectorAll("*").forEach(element => {
    if (element.tagName === "IMG" && element.naturalWidth > 100) {
      const box = element.getBoundingClientRect();
      if (box.width) found.push([box.width, box.height]);
    }
    if (element.shadowRoot) walk(element.shadowRoot);
  });
  walk(document);
  return found;
}"""
"""Widths and heights of all pictures that can be seen, those of components within included."""


@contextmanager
def tensorboard(run: Path) -> Iterator[str]:
    """TensorBoard on a run, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    program = [sys.executable, "-m", "tensorboard.main", "--load_fast=false"]
    server = subprocess.Popen([*program, "--logdir", str(run), "--port", str(port)])
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(address, timeout=1)
                break
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--screenshots", type=Path)
    given = parser.parse_args()
    chromium = os.environ.get("METATUNE_CHROMIUM") or shutil.which("chromium")
    with tensorboard(given.run) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        for name, page in {**PAGES, "custom scalars": "custom_scalars"}.items():
            tab.goto(f"{address}#{page}")
            tab.reload()
            tab.wait_for_timeout(SETTLED)
            if given.screenshots:
                given.screenshots.mkdir(parents=True, exist_ok=True)
                tab.screenshot(path=given.screenshots / f"{page}.png")
            if name not in SHOWN:
                continue
            for across, down in sorted(set(map(tuple, tab.evaluate(SIZES)))):
                scale = min(across / WIDTH, down / HEIGHT)
                print(f"{name}: {across:.0f} x {down:.0f} px, text {FONT * scale:.1f} px high")
        browser.close()


if __name__ == "__main__":
    main()
