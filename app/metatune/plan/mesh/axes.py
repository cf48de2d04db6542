"""`data=8,fsdp=8`, as the section of a recipe that it stands for, and back."""

from dataclasses import asdict

from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError

OPTION = "--devices"
CURE = "write e.g. `data=8,fsdp=8`"


def override(text: str) -> str:
    """The change of a recipe that a mesh on the command line is; the recipe's rules do the rest.

    >>> override("data=8, fsdp=4")
    'devices={data: 8, fsdp: 4}'

    Args:
        text: `AXIS=PARTS` each, separated by commas.

    Raises:
        RecipeError: it isn't, or names an axis twice.
    """
    axes: dict[str, str] = {}
    for part in text.split(","):
        axis, _, parts = (each.strip() for each in part.partition("="))
        if not axis.isidentifier() or not parts.isdecimal():
            problem = "must be AXIS=PARTS, separated by commas"
            raise RecipeError("recipe", [Fault(OPTION, text, problem, CURE)])
        if axis in axes:
            problem = f"names {axis} twice"
            raise RecipeError("recipe", [Fault(OPTION, text, problem, "leave one of them out")])
        axes[axis] = parts
    return f"devices={{{', '.join(f'{axis}: {parts}' for axis, parts in axes.items())}}}"


def named(mesh: schema.DevicesSpec) -> str:
    """A mesh in words: `fsdp=8`, or `one device`."""
    axes = asdict(mesh).items()
    return ",".join(f"{axis}={parts}" for axis, parts in axes if parts > 1) or "one device"
