"""A plan for a mesh as lines for people and as JSON for programs."""

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from metatune.plan.mesh.accelerators import UTILISATION
from metatune.plan.mesh.axes import named
from metatune.plan.mesh.planning import MeshPlan
from metatune.plan.table import duration, size


def lines(plan: MeshPlan, why: str = "", tried: tuple[str, ...] = ()) -> RenderableType:
    """What a mesh takes, one thing a line.

    Args:
        plan: the plan.
        why: this mesh was chosen; empty where it was asked for.
        tried: meshes that are too small, each with what is too much.
    """
    told = [
        f"mesh: {named(plan.devices)}; {plan.devices.count} x {plan.device}, "
        f"{size(plan.limit_bytes)} of each to use",
        f"estimator: {plan.spec.kind}",
    ]
    if found := plan.memory:
        parts = {**found._asdict(), "device": found.device}
        names = ("state", "carry", "activations", "logits")
        each = ", ".join(f"{name} {size(parts[name])}" for name in names)
        told.append(f"each device: {size(found.device)} ({each})")
        elsewhere = {"host": found.host, "disk": found.disk}
        of = plan.devices_of_a_host
        whose = "of its host" if of == 1 else f"of each host, with {of} devices"
        told += [
            f"{where}, {whose}: {size(amount)}" for where, amount in elsewhere.items() if amount
        ]
        told.append(f"fits: {'yes' if plan.fits else 'no'}")
        told.append(f"a hypergradient, on each device: {plan.flops / 1e12:.3g} TFLOP of products")
        told += [
            f"  {kind}: {each.arrays:,} arrays, {size(each.bytes)} sent at most"
            for kind, each in plan.moved.items()
        ]
    if plan.problem:
        told.append(f"problem: {plan.problem}")
    if plan.pace:
        told.append(
            f"at least: hypergradient {duration(plan.pace.hypergradient)}, outer step "
            f"{duration(plan.pace.outer_step)}, run {duration(plan.pace.run)}: not timed, but "
            f"counted at {UTILISATION:.0%} of the device's products, and links between devices of "
            "one host, while nothing is computed; latencies, which are most of a small model's "
            "time, and compilation are left out"
        )
    elif plan.memory:
        told.append("seconds: name a device (--device h100) to have them counted")
    told += [f"too small: {each}" for each in tried]
    if why:
        told.append(f"pick: {why}")
    if plan.fits:
        told.append(f"set: {setting(plan)}")
    return Group(*(Text(line) for line in told))


def as_json(plan: MeshPlan, why: str = "", tried: tuple[str, ...] = ()) -> dict[str, Any]:
    """Bytes and seconds as numbers; arguments as of `lines`."""
    return {
        "devices": asdict(plan.devices),
        "device": plan.device,
        "devices_of_a_host": plan.devices_of_a_host,
        "limit_bytes": plan.limit_bytes,
        "estimator": plan.spec.kind,
        "fits": plan.fits,
        "why": why or None,
        "tried": list(tried),
        "set": setting(plan) if plan.fits else None,
        "problem": plan.problem or None,
        "bytes": plan.memory and {**plan.memory._asdict(), "device": plan.memory.device},
        "flops": plan.flops if plan.memory else None,
        "collectives": {kind: each._asdict() for kind, each in plan.moved.items()},
        "seconds": plan.pace
        and {
            "hypergradient": plan.pace.hypergradient,
            "outer_step": plan.pace.outer_step,
            "run": plan.pace.run,
            "counted": True,
        },
    }


def setting(plan: MeshPlan) -> str:
    """The changes of a recipe that put it on the mesh."""
    axes = asdict(plan.devices).items()
    said = [f"devices.{axis}={parts}" for axis, parts in axes if parts > 1]
    return " ".join(said) or "devices.data=1"
