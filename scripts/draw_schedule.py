#!/usr/bin/env python3
"""Draws a run's tuned schedules, as the README shows them.

usage: draw_schedule.py RUN OUT.svg [TITLE]
"""

import sys
from pathlib import Path

from metatune import artefact
from metatune.report.pictures.schedules import schedule_svg


def main() -> None:
    run, out, *title = sys.argv[1:]
    heading = title[0] if title else "Tuned learning rates and data mixture"
    Path(out).write_text(schedule_svg(artefact.load(Path(run)), heading))


if __name__ == "__main__":
    main()
