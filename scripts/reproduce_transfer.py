#!/usr/bin/env python3
"""What becomes of a run's gain on larger trainings: by the rule, without one, and why.

Climbs the ladder once for each rule, by `metatune transfer`, which goes on where it was; prints the
tables of docs/ladder.md from the run's transfer.jsonl, and what is asked of them; and draws them.
The rule that is named last is the one that the run's ledger is left with.

usage: reproduce_transfer.py RUN [--ladder "all=2,4,8"] [--rule none --rule complete_d_p]
                             [--seeds 5] [--out docs/transfer.svg] [--judge]

--judge trains nothing, and writes nothing: it prints what is known.
"""

import argparse
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from metatune import artefact
from metatune.ladder.candidates import BASELINES, LEVELS, LOW
from metatune.ladder.judging import Difference, Judged, difference, judge
from metatune.ladder.record import LadderRecord
from metatune.ladder.rungs import parse
from metatune.report.pictures.panels import Curve, Panel, line_chart
from metatune.transfer.rung import Rung

PLAIN: Final = "none"
SURE: Final = 3.0
"""Standard errors by which a gain is one, at every rung."""
KEPT: Final = 0.6
"""Of the proxy's gain, that is to be left at the top."""
SWEPT: Final = 10
"""Baselines that are to be swept at the top, at least."""
HELD: Final = 0.8
"""Of predictions, that are to hold."""
ABLATIONS: Final = {
    "tuned": "rates and mixture, by share of the training",
    "rates": "rates alone",
    "mixture": "mixture alone",
    "by update": "both, read by update",
}


class Row(NamedTuple):
    """A rung under a rule.

    Attributes:
        rung: its sizes.
        size: what the ledger says of these: parameters, steps, operations.
        losses: by candidate, over the same seeds.
        judged: what they come to.
        predicted: before it was trained; None of those of which nothing was.
    """

    rung: Rung
    size: Mapping[str, Any]
    losses: Mapping[str, Sequence[float]]
    judged: Judged
    predicted: Mapping[str, Any] | None


def rows(run: Path, tuned: artefact.Artefact, rule: str, rungs: Sequence[Rung]) -> list[Row]:
    """The rungs that were trained under a rule, by their compute; the proxy first."""
    ledger = tuned.transfer
    if ledger is None:
        raise SystemExit(f"{run}: no ladder was climbed yet; leave --judge out")
    sizes = {rung["name"]: rung for rung in ledger["rungs"]}
    identity = {
        "rule": rule,
        "recipe_sha256": tuned.provenance["recipe_sha256"],
        "best_outer_step": tuned.result["best_outer_step"],
    }
    record, found = LadderRecord(run, identity), list[Row]()
    for rung in sorted(rungs, key=lambda rung: sizes.get(rung.name, {}).get("operations", 0.0)):
        seeds = sorted(record.losses(rung).get("tuned", {}))
        losses = record.complete(rung, seeds)
        if rung.name not in sizes or len(seeds) < 2 or not {"default", "tuned"} <= set(losses):
            print(f"{rung.name} by {rule}: not trained, or not to its end; left out")
            continue
        judged = judge(losses, found[0].losses if found else None, LOW)
        predicted = record.predictions().get(rung.key)
        found.append(Row(rung, sizes[rung.name], losses, judged, predicted))
    return found


def best_of(row: Row, schedules: str) -> tuple[str, float] | None:
    """The name and the loss of schedules at their best level; None where they weren't trained."""
    means = {
        name: float(np.mean(losses))
        for name, losses in row.losses.items()
        if name == schedules or name.startswith(f"{schedules} x")
    }
    return min(means.items(), key=lambda each: each[1]) if means else None


def measured(rows: Sequence[Row], plain: Sequence[Row]) -> Iterator[str]:
    """The table of losses and gains."""
    without = {row.rung: row for row in plain}
    yield (
        "| rung | parameters | steps | compute | default | best baseline, of | tuned, no rule | "
        "**tuned** | gain, 95 % | kept | over the best, 95 % | best level | predicted |"
    )
    yield "|---" * 13 + "|"
    for row in rows:
        judged, other = row.judged, without.get(row.rung)
        baselines = sum(name.split(" x")[0] in BASELINES for name in row.losses)
        yield " | ".join(
            [
                f"| {row.rung.name}",
                f"{row.size['parameters']:,}",
                f"{row.size['steps']:,}",
                f"×{row.size['operations'] / rows[0].size['operations']:,.3g}",
                f"{mean(row, 'default'):.4f}",
                f"{mean(row, judged.best):.4f} ({judged.best}), {baselines}",
                f"{mean(other, 'tuned'):.4f}" if other else "",
                f"**{mean(row, 'tuned'):.4f}**",
                interval(judged.gain),
                "" if judged.retention is None else f"{100 * judged.retention:.0f} %",
                interval(judged.over_best),
                f"×{judged.level:g}",
                "" if row.predicted is None else foretold(row) + " |",
            ]
        ) + ("" if row.predicted else " |")


def ablations(rows: Sequence[Row]) -> Iterator[str]:
    """What of the gain over the default at the same level is rates, what mixture, what horizon."""
    yield "| gain over the default, 95 % | " + " | ".join(row.rung.name for row in rows) + " |"
    yield "|---" * (1 + len(rows)) + "|"
    for name, words in ABLATIONS.items():
        cells = [
            interval(difference(row.losses["default"], row.losses[name]))
            if name in row.losses
            else ""
            for row in rows
        ]
        yield f"| {words} | " + " | ".join(cells) + " |"


def verdicts(rows: Sequence[Row], plain: Sequence[Row]) -> Iterator[tuple[bool | None, str]]:
    """What is asked of a ladder, whether it is so, None where that can't be told, and by what."""
    above, top = rows[1:], rows[-1]
    sure = [row.judged.gain.mean / row.judged.gain.error for row in rows]
    yield (
        min(sure) > SURE,
        (
            f"at every rung the tuned beats the default by more than {SURE:g} standard errors: "
            + ", ".join(
                f"{row.rung.name} {value:.1f}" for row, value in zip(rows, sure, strict=True)
            )
        ),
    )
    swept = sum(name.split(" x")[0] in BASELINES for name in top.losses)
    over = top.judged.over_best
    yield (
        over.low > 0 and swept >= SWEPT,
        (
            f"at the top it beats the best of {swept} baselines swept there ({SWEPT} at least): "
            f"{interval(over)} over {top.judged.best}"
        ),
    )
    kept = top.judged.retention
    without = next((row.judged.retention for row in plain if row.rung == top.rung), None)
    said = "not known" if without is None else f"{100 * without:.0f} %"
    yield (
        (None if kept is None else kept >= KEPT),
        (
            f"at the top {KEPT:.0%} of the gain is kept at least: "
            + ("the proxy has none" if kept is None else f"{100 * kept:.0f} %")
            + f"; without a rule {said}"
        ),
    )
    yield (
        all(row.judged.level in LEVELS for row in rows),
        (
            "the best level is within x1/2 to x2 at every rung: "
            + ", ".join(f"{row.rung.name} x{row.judged.level:g}" for row in rows)
        ),
    )
    made = [row for row in above if row.predicted]
    held = sum(holds(row) for row in made)
    yield (
        (held / len(made) >= HELD if made else None),
        (f"{HELD:.0%} of the predictions hold at least: {held} of {len(made)}"),
    )


def panels(rows: Sequence[Row], plain: Sequence[Row]) -> list[Panel]:
    """Loss, what is kept, what was predicted, and the ablations, over compute."""
    compute = [row.size["operations"] for row in rows]
    across = "operations of a training"

    def of(found: Sequence[Row], value: Any) -> Curve:
        points = [(row.size["operations"], value(row)) for row in found]
        kept = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
        return Curve([x for x, _ in kept], [y for _, y in kept])

    def target(row: Row) -> float | None:
        best = best_of(row, "target")
        return None if best is None else best[1]

    losses = {
        "default": of(rows, lambda row: mean(row, "default")),
        "the target's text alone, at its best level": of(rows, target),
        "best baseline": of(rows, lambda row: mean(row, row.judged.best)),
        "tuned, without a rule": of(plain, lambda row: mean(row, "tuned")),
        "tuned, carried": of(rows, lambda row: mean(row, "tuned")),
    }
    own = rows[0].judged.gain.mean
    share = {
        "gain, in that on the proxy (%)": of(rows, lambda row: 100 * row.judged.gain.mean / own),
        "without a rule": of(plain, lambda row: 100 * row.judged.gain.mean / own),
        "its interval: low": dashed(compute, [100 * row.judged.gain.low / own for row in rows]),
        "high": dashed(compute, [100 * row.judged.gain.high / own for row in rows]),
    }
    found = [row for row in rows if row.predicted]
    at = [row.size["operations"] for row in found]
    ends = {key: [(row.predicted or {})[key] for row in found] for key in ("gain", "low", "high")}
    foretold = {"measured": of(rows, lambda row: row.judged.gain.mean)}
    if found:
        foretold |= {
            "predicted before": Curve(at, ends["gain"]),
            "its interval: low": dashed(at, ends["low"]),
            "high": dashed(at, ends["high"]),
        }
    parts = {
        words: of(
            [row for row in rows if name in row.losses],
            lambda row, name=name: mean(row, "default") - mean(row, name),
        )
        for name, words in ABLATIONS.items()
    }
    return [
        Panel("held-out loss", across, drawn(losses), log_x=True),
        Panel("what is kept", across, drawn(share), log_x=True),
        Panel("gain, predicted and measured", across, drawn(foretold), log_x=True),
        Panel("gain of each part", across, drawn(parts), log_x=True),
    ]


def drawn(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Those that have a point."""
    return {name: curve for name, curve in curves.items() if len(curve.x)}


def dashed(x: Sequence[float], y: Sequence[float]) -> Curve:
    """The end of an interval."""
    return Curve(x, y, theory=True)


def mean(row: Row, name: str) -> float:
    """Of a candidate's losses."""
    return float(np.mean(row.losses[name]))


def interval(found: Difference) -> str:
    """A difference with its interval."""
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def holds(row: Row) -> bool:
    """Whether a gain lies where it was predicted."""
    predicted = row.predicted or {}
    return predicted["low"] <= row.judged.gain.mean <= predicted["high"]


def foretold(row: Row) -> str:
    """Where a gain was predicted to be, and whether it was."""
    predicted = row.predicted or {}
    word = "holds" if holds(row) else "missed"
    return f"{predicted['low']:+.4f} to {predicted['high']:+.4f}: {word}"


def main() -> None:
    """Climbs, prints, draws."""
    parser = argparse.ArgumentParser(description="What becomes of a gain on larger trainings.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--ladder", default="all=2,4,8", help="rungs, as of metatune transfer")
    parser.add_argument("--rule", action="append", help="none and complete_d_p by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/transfer.svg"))
    parser.add_argument("--judge", action="store_true", help="only print what is known")
    given = parser.parse_args()
    rules = given.rule or [PLAIN, "complete_d_p"]
    words, rungs = given.ladder.split(), parse(given.ladder.split())
    for rule in () if given.judge else rules:
        command = ["transfer", str(given.run), "--ladder", *words, "--rule", rule]
        start = "from metatune.cli import main; main()"
        subprocess.run(
            [sys.executable, "-c", start, *command, "--seeds", str(given.seeds)], check=True
        )
    tuned = artefact.load(given.run)
    found = {rule: rows(given.run, tuned, rule, rungs) for rule in rules}
    plain, carried = found.get(PLAIN, []), found[rules[-1]]
    if len(carried) < 2:
        raise SystemExit(f"{given.run}: no rung above the proxy was trained by {rules[-1]}")
    for line in (*measured(carried, plain), "", *ablations(carried), ""):
        print(line)
    for holding, words in verdicts(carried, plain):
        print({True: "yes", False: "NO ", None: "?  "}[holding], words)
    if not given.judge:
        caption = (
            f"Carried by {rules[-1]}; means over {len(carried[0].losses['tuned'])} unseen seeds, "
            f"{tuned.result['unit']} on the test split. Dashed: ends of 95 % intervals."
        )
        title = "What becomes of a tuned schedule's gain on larger trainings"
        given.out.write_text(line_chart(title, panels(carried, plain), caption))
        print(f"drawn: {given.out}")


if __name__ == "__main__":
    main()
