"""An artefact in words: its verdict, its curves by group, and the README that stands beside it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metatune.artefact import Artefact
from metatune.artefact.comparison import config_sha256
from metatune.artefact.document import held
from metatune.artefact.files import SIMPLE
from metatune.artefact.sections.section import ByKnot, OnLogScale
from metatune.report import search, sharing, signal, transfer, usage
from metatune.report import verdict as contest
from metatune.report.certificate import level, summaries
from metatune.report.intervals import ENOUGH_PAIRS, interval, pairs

HASH_DIGITS = 12
"""Of a SHA-256, as it is shown; tuned.json has it whole."""


def verdict(result: Mapping[str, Any], *, decided: bool = False) -> str:
    """The result of a tuning in one honest sentence.

    A difference whose 95 % confidence interval holds zero is none.

    Args:
        result: the `result` of an artefact; its difference is tuned minus default, so that
            negative is better.
        decided: whether a contest has decided what to do, which then isn't said here.

    Returns:
        The sentence, without a full stop.
    """
    if "status" not in result:
        return "nothing was measured: keep your defaults until it is"
    if result["status"] != "complete":
        steps = result.get("outer_steps", 0)
        return (
            f"unfinished after {steps} outer steps: nothing is measured yet, keep your defaults "
            "until it is"
        )
    difference, count = result["difference"], pairs(result)
    unit = result["unit"].replace(" per ", "/")
    direction = "better" if difference < 0 else "worse"
    if (found := interval(result)) is None:
        return (
            f"{direction} by {abs(difference):.3f} {unit} in {count} "
            f"pair{'s' if count > 1 else ''} of trainings, too few to tell: measure at least "
            f"{ENOUGH_PAIRS} seeds (outer.test.seeds)"
        )
    digits, within = _decimals(found.half), f"95 % interval of {count} pairs"
    if not found.beyond_noise:
        low, high = (f"{edge:+.{digits}f}" for edge in found)
        detail = f"{difference:+.{digits}f} {unit}, {within} {low} to {high}"
        advice = "" if decided else ": keep your defaults"
        return f"no difference beyond noise{advice} ({detail if found.half else 'no change'})"
    low, high = (f"{edge:.{digits}f}" for edge in sorted(map(abs, found)))
    advice = "" if difference < 0 or decided else ": keep your defaults"
    return (
        f"{direction} than the default by {abs(difference):.{digits}f} {unit} ({within} {low} to "
        f"{high}){advice}"
    )


def what_is_tuned(artefact: Artefact) -> list[str]:
    """A line for each schedule of the artefact: what it holds, for how many stretches."""
    first, *rest = (section.words(value) for section, value in held(artefact))
    # Sharing is of what is said first, the learning rates.
    shared = artefact.result.get("sharing")
    headline = [] if shared is None else [sharing.headline(shared)]
    return [*first, *headline, *(line for lines in rest for line in lines)]


def horizon(artefact: Artefact) -> str:
    """How long the training is that was tuned."""
    return f"{artefact.horizon_steps:,} steps, {artefact.horizon_tokens:,} tokens"


def provenance_lines(artefact: Artefact) -> list[tuple[str, str]]:
    """What the artefact was made from, as names and values; hashes are cut short."""
    lines = []
    for name, value in artefact.provenance.items():
        said = _value(name, value)
        if name == "model_config":
            said = f"{config_sha256(value)[:HASH_DIGITS]}: {said}"
        lines.append((name.removesuffix("_sha256").replace("_", " "), said))
    if artefact.origin is not None and artefact.origin.record is not None:
        lines.append(("machine", _machine(artefact.origin.record["machine"])))
    return lines


def readme(artefact: Artefact) -> str:
    """The README.md of an artefact folder: what was tuned, on what, the result, how to use it.

    Args:
        artefact: the artefact that the README stands beside.

    Returns:
        Markdown.
    """
    sections = [
        "# Tuned schedules\n",
        "Written by `metatune fit`. The numbers are in `tuned.json`.\n",
        f"**Result: {verdict(artefact.result, decided=artefact.verdict is not None)}.**\n",
        *([] if artefact.verdict is None else [f"**Verdict: {artefact.verdict['sentence']}.**\n"]),
        "## What was tuned\n",
        _bullets([*what_is_tuned(artefact), f"horizon: {horizon(artefact)}"]),
        *_measurement(artefact.result),
        *_course(artefact.result),
        *_sharing(artefact.result),
        *_certificate(artefact.certificate),
        *_verdict(artefact.verdict),
        *_transfer(artefact.transfer),
        "## How to use it\n",
        *_usage(artefact),
        "## Knots\n",
        "Schedules are values at *knots*, which are fractions of the training: knot 0.25 is a "
        "quarter of the way. With `constant` interpolation a value holds from its knot to the "
        "next, with `linear` it moves along the line between them. So the schedules stretch over "
        "a training of any length, but they were tuned for the horizon above; far from it they "
        "are a guess.\n\n"
        "Learning rates are absolute, per update, by Hugging Face checkpoint name, for every "
        "parameter, warmup and decay included: use them instead of your schedule, not on top of "
        "it. The multipliers are what the tuning changed of the base schedule.\n",
        *_schedules(artefact),
        "## Provenance\n",
        _bullets(f"{name}: {value}" for name, value in provenance_lines(artefact)),
    ]
    return "\n".join(sections)


def _measurement(result: Mapping[str, Any]) -> list[str]:
    """How the result was measured, with every pair of trainings."""
    best = (
        f"What is tuned here is {search.chosen(result)}: the meta-parameters after so many "
        "updates, point 0 being the recipe's own."
        if result.get("best_outer_step", 0) >= 0
        else f"What is tuned here is {search.best_point(result)}."
    )
    if result["status"] != "complete":
        return ["## Result\n", f"{best} The run isn't complete, go on with `--resume`.\n"]
    pairs = zip(result["held_out_seeds"], result["before"], result["after"], strict=True)
    rows = [(str(seed), f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}") for seed, a, b in pairs]
    means = (result["objective_before"], result["objective_after"], result["difference"])
    rows.append(("**mean**", f"{means[0]:.4f}", f"{means[1]:.4f}", f"{means[2]:+.4f}"))
    return [
        "## Result\n",
        f"Held out, in {result['unit'].removeprefix('of ')}, lower is better: whole trainings with "
        "the recipe's defaults and with the tuned schedules, on the same seeds, which the tuning "
        f"never saw, and on text that it never saw. {best}\n",
        _table(("seed", "default", "tuned", "difference"), rows),
        *_population(result.get("population")),
    ]


def _course(result: Mapping[str, Any]) -> list[str]:
    """How the search ended, if there is anything to say of it."""
    told = [*search.closing(result), *search.jumped(result), *signal.ways(result)]
    return ["## The search\n", _bullets(_sentence(line) for line in told)] if told else []


def _sharing(result: Mapping[str, Any]) -> list[str]:
    """How learning rates came to be shared, if they are."""
    changes = result.get("sharing", {}).get("changes", ())
    return ["## Shared learning rates\n", _bullets(sharing.sentences(changes))] if changes else []


def _population(found: Mapping[str, Any] | None) -> list[str]:
    """How many trainings each hypergradient was the mean of, and how clear it was."""
    if found is None:
        return []
    medians = {key: strength["median"] for key, strength in found["signal"].items()}
    clear = ", ".join(f"{key} {m:.2g}" for key, m in medians.items() if m is not None)
    told = f" Median signal to noise, in the mean over outer steps: {clear}." if clear else ""
    return [f"Each hypergradient was the mean over {found['members']} trainings.{told}\n"]


def _certificate(certificate: Mapping[str, Any] | None) -> list[str]:
    """What `metatune check` found."""
    if certificate is None:
        return []
    said = summaries(certificate["checks"])
    rows = [(name, level(certificate["checks"][name]), sentence) for name, sentence in said.items()]
    return [
        "## Gradient certificate\n",
        f"`certificate.json`: **{certificate['verdict']}**, of the recipe before it was tuned.\n",
        *([_bullets(certificate["causes"])] if certificate["causes"] else []),
        _table(("check", "level", "found"), rows),
    ]


def _verdict(found: Mapping[str, Any] | None) -> list[str]:
    """What `metatune verdict` found."""
    if found is None:
        return []
    first, *rest = contest.lines(found)
    rows = [
        (
            each["name"],
            "diverged"
            if each["behind_tuned"]["mean"] is None
            else f"{each['behind_tuned']['mean']:+.4f}",
            each.get("words", ""),
        )
        for each in found["rivals"]
    ]
    return [
        "## Against what you would have done\n",
        f"`verdict.json`: **{first}**.\n",
        _bullets(rest),
        *([_table(("contestant", "loss minus tuned", "chose"), rows)] if rows else []),
    ]


def _transfer(ledger: Mapping[str, Any] | None) -> list[str]:
    """What `metatune transfer` measured."""
    if ledger is None:
        return []
    return ["## On larger trainings\n", _bullets(transfer.lines(ledger))]


def _usage(artefact: Artefact) -> list[str]:
    what = f"../{SIMPLE}" if usage.takes_simple(artefact) else "."
    told = usage.commands(artefact, what)
    typed = "\n".join(f"# {each.summary}\n{each.command}" for each in told)
    after = (
        "Each writes a folder that works without metatune, with a README of its own. These express "
        "all that was tuned; `metatune export --list` prints those that can express a part too."
    )
    return [
        *(f"{line}\n" for line in usage.advice(artefact)),
        f"In this folder:\n\n```sh\n{typed}\n```\n",
        "\n".join([after, *usage.placeholders(told)]) + "\n",
    ]


def _schedules(artefact: Artefact) -> list[str]:
    """Tables of what was tuned, a row for each group, domain or class, a column for each knot."""
    tables = []
    for section, value in held(artefact):
        for view in section.views(value, artefact.horizon_steps):
            if (shown := view.factors if isinstance(view, OnLogScale) else view) is None:
                continue
            if isinstance(shown, ByKnot):
                head = (shown.head, *(f"{knot:.3g}" for knot in shown.knots))
                rows = [
                    (name, *(format(float(v), shown.digits) for v in curve))
                    for name, curve in shown.curves.items()
                ]
                tables.append(_table(head, rows))
    return tables


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left; bars inside a cell are escaped."""
    rule = [":---", *("---:" for _ in head[1:])]
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (head, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _sentence(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}."


def _value(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(name, entry)}" for key, entry in value.items())
    return str(value)[:HASH_DIGITS] if name.endswith("_sha256") else str(value)


def _machine(machine: Mapping[str, Any]) -> str:
    """What the result was computed on; packages stand above."""
    kept = ("device", "devices", "cpu", "threads", "system", "architecture")
    return ", ".join(f"{key} {machine[key]}" for key in kept if key in machine)


def _decimals(error: float) -> int:
    """Decimals that show the first digit of a standard error, and its second after a 1."""
    if not error:
        return 4
    exponent = math.floor(math.log10(error))
    return max(0, -exponent + (error < 2 * 10.0**exponent))
