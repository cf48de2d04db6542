"""`metatune plan`: what a recipe will take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metatune.cli.root import Overrides, RecipeArgument, plain_errors

if TYPE_CHECKING:
    from metatune.plan.progress import Listener

AUTO = "auto"


def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    *,
    out: Annotated[
        Path, typer.Option(help="The run folder to be, for what is kept on disk.")
    ] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS=PARTS,...",
            help="Plan for a mesh that needn't be here, e.g. data=8,fsdp=8; auto for the smallest "
            "that fits.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What each device is, e.g. h100, a100, v5p: its memory, and seconds by its speed. "
            "One is enough, or the smallest mesh of them is looked for.",
        ),
    ] = None,
) -> None:
    """Tell what a recipe will cost, and which estimator to take, before it is run."""
    import json

    from rich.console import Console

    from metatune import plan as plans
    from metatune.fit.process.allocation import keep_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.hypergrad import EstimatorError
    from metatune.inner import prepare_file
    from metatune.plan import mesh, table
    from metatune.plan.progress import shown
    from metatune.recipe import shipped

    with plain_errors(EstimatorError, plans.NotPredicted, mesh.UnknownAccelerator):
        keep_compiled()
        keep_memory()
        if devices is not None or device is not None:
            with shown(Console(stderr=True)) as listener:
                made = _of_meshes(recipe, overrides or [], out, devices, device, listener)
            shows, numbers, fit = zip(*made, strict=True)
            hint = ""
        else:
            training = prepare_file(shipped.find(recipe), overrides or ())
            with shown(Console(stderr=True)) as listener:
                training, why = mesh.settled(training, folder=out, listener=listener)
                if why:
                    typer.echo(why, err=True)
                phases = plans.by_phase(training, folder=out, listener=listener)
            shows = [table.table(phase) for phase in phases]
            numbers = [table.as_json(phase) for phase in phases]
            fit = [phase.pick is not None for phase in phases]
            hint = "`metatune plan RECIPE --devices auto` looks for the smallest mesh that fits"
        if as_json:
            whole = numbers[0] if len(numbers) == 1 else {"phases": numbers}
            typer.echo(json.dumps(whole, indent=1))
        else:
            for number, show in enumerate(shows, start=1):
                if len(shows) > 1:
                    typer.echo(f"phase {number} of {len(shows)}, as if it were the whole search")
                Console().print(show)
        if not all(fit):
            if hint:
                typer.echo(hint, err=True)
            raise typer.Exit(2)


def _of_meshes(
    recipe: str,
    overrides: list[str],
    out: Path,
    devices: str | None,
    device: str | None,
    listener: "Listener",
) -> list[tuple[Any, dict[str, Any], bool]]:
    """Of each phase what is shown, the same as JSON, and whether it fits."""
    from metatune.inner import prepare_file
    from metatune.plan import mesh
    from metatune.plan.mesh import table
    from metatune.plan.phases import each_alone
    from metatune.recipe import shipped

    of = None if device is None else mesh.accelerator(device)
    if devices is not None:
        change = "devices=auto" if devices == AUTO else mesh.override(devices)
        overrides = [*overrides, change]
    training = prepare_file(shipped.find(recipe), overrides, elsewhere=True)
    found = []
    for alone in each_alone(training):
        if alone.recipe.devices == AUTO:
            plan, why, tried = mesh.smallest(alone, of, folder=out, listener=listener)
        else:
            plan, why, tried = mesh.on_mesh(alone, of, folder=out, listener=listener), "", ()
        told = (plan, why, tried)
        found.append((table.lines(*told), table.as_json(*told), plan.fits))
    return found
