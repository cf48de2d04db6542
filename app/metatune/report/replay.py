"""What `metatune replay` prints, of the document that it gives as JSON."""

from collections.abc import Mapping
from typing import Any

BIT_FOR_BIT = "bit for bit"


def lines(replay: Mapping[str, Any]) -> list[str]:
    """What was compared, how near the numbers are, and the verdict, a line each."""
    held, training, band = replay["held_out"], replay["training"], replay["band"]
    found = []
    if replay["machine_differs"]:
        found.append("another type of machine than the one that was recorded:")
        found += [f"  {line}" for line in replay["machine_differs"]]
    elif not replay["machine_repeats_itself"]:
        found.append("sums on this device are rounded differently each time")
    if band is not None:
        found.append(
            f"band: the spread over the test seeds; a seed within {band['seed']:.3g}, "
            f"their mean within {band['mean']:.3g}"
            + ("" if len(held["seeds"]) > 1 else " (one seed has no spread: only equal numbers do)")
        )
    found += [f"tuned.json isn't what was tuned: {path}" for path in replay["schedules_differ"]]
    found.append(f"held-out losses of {len(held['seeds'])} seeds: {_apart(held)}")
    found.append(
        f"training losses at {len(training['steps'])} steps of seed {training['seed']}: "
        f"{_apart(training)}"
    )
    if replay["bit_for_bit"]:
        verdict = f"agrees {BIT_FOR_BIT}"
    elif replay["agrees"]:
        verdict = "agrees within the band"
    else:
        verdict = "DISAGREES with what was recorded"
    return [*found, f"replay: {verdict}"]


def _apart(compared: Mapping[str, Any]) -> str:
    if compared["largest_difference"] is None:
        return "a training diverged"
    if compared["largest_difference"] == 0:
        return BIT_FOR_BIT
    return f"largest difference {compared['largest_difference']:.3g}"
