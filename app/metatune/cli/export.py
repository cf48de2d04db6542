"""`metatune export`: schedules for other trainers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import plain_errors

OPTIONS = {
    "target": "--to",
    "folder": "--out",
    "lossy": "--lossy",
    "overwrite": "--overwrite",
    "steps": "--steps",
    "tokens_per_step": "--tokens-per-step",
    "sequences_per_step": "--sequences-per-step",
    "warmup": "--warmup",
    "groups": "--groups",
    "target_version": "--target-version",
    "verified": "--verify",
    "EXPORTERS": "metatune export --list",
}
"""By the name in `metatune.artefact.exporters`, which errors give."""


def export(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder, or an artefact.")
    ] = None,
    *,
    to: Annotated[str | None, typer.Option(help="A target of --list.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write.")] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Print the targets and what each can express.")
    ] = False,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Drop what the target can't express.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Updates of your training; the tuned ones by default.")
    ] = None,
    tokens_per_step: Annotated[
        int | None, typer.Option(help="Tokens of an update of your training.")
    ] = None,
    sequences_per_step: Annotated[
        int | None, typer.Option(help="Sequences of an update of your training.")
    ] = None,
    warmup: Annotated[
        str, typer.Option(help="Keep the warmup in 'steps', or its 'fraction' of training.")
    ] = "fraction",
    groups: Annotated[
        int | None,
        typer.Option(help="Merge the nearest curves until there are so many groups of parameters."),
    ] = None,
    target_version: Annotated[
        str | None, typer.Option(help="Refuse if the export isn't written for this version.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Have the target's own code read it, where that is installed, and compare.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL_DIR",
            help="Carry the schedules to this model's sizes, as its config.json says them.",
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="How the schedules follow the sizes of --against: none, mup, completep, "
            "complete_d_p (where something differs)."
        ),
    ] = None,
    widths: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Write tuned schedules for another trainer; works there without metatune."""
    from metatune import artefact
    from metatune.artefact import UNFINISHED, exporters
    from metatune.artefact.demands import fitted_lines
    from metatune.recipe.file_errors import refuse_unmakeable

    if listed:
        from metatune.report import export_table

        export_table.show()
        return
    if run is None or to is None or out is None:
        typer.echo("error: give RUN, --to and --out; targets: metatune export --list", err=True)
        raise typer.Exit(2)
    if widths is not None:
        typer.echo(f"error: --widths is --rule now: --rule {widths}", err=True)
        raise typer.Exit(2)
    with plain_errors(), _as_options():
        refuse_unmakeable(out)
        tuned, warnings = artefact.load(run), ()
        unfinished = tuned.result.get("status") == "unfinished"
        if against is not None or rule is not None:
            from metatune.transfer.toward import toward_folder

            carried = toward_folder(
                tuned,
                against,
                rule,
                steps=steps,
                tokens_per_step=tokens_per_step,
                sequences_per_step=sequences_per_step,
            )
            warnings = carried.warnings
            if against is not None:
                from metatune.ladder.beyond import parameters_of, warning
                from metatune.models import read_config

                own = tuned.horizon_tokens // tuned.horizon_steps
                tokens = (tokens_per_step or own) * (steps or tuned.horizon_steps)
                vocabulary = tuned.provenance.get("vocab_size")
                far = warning(tuned, parameters_of(read_config(against), vocabulary), tokens)
                warnings = (*warnings, *([f"warning: {far}"] if far else []))
            tuned = carried.artefact
        sizes = None
        weighed = groups is not None or (
            to in exporters.EXPORTERS and exporters.weighs_parameters(to)
        )
        if weighed:
            from metatune.fit.comparing.shapes import sizes_of_parameters

            sizes = sizes_of_parameters(tuned)
        done = exporters.export(
            tuned,
            to,
            out,
            overwrite=overwrite,
            lossy=lossy,
            steps=steps,
            tokens_per_step=tokens_per_step,
            sequences_per_step=sequences_per_step,
            warmup=warmup,
            sizes=sizes,
            groups=groups,
            verified=verify,
            target_version=target_version,
        )
        for path in done.paths:
            typer.echo(str(path))
        for what in fitted_lines(tuned):
            typer.echo(f"note: {what}", err=True)
        for what in done.verified:
            typer.echo(f"verified: {what}", err=True)
        if done.merged:
            typer.echo(f"note: {done.merged}", err=True)
        if unfinished:
            typer.echo(f"warning: {UNFINISHED}", err=True)
        for what in warnings:
            typer.echo(what, err=True)
        for what in done.dropped:
            typer.echo(f"dropped: {what}", err=True)
        if done.warning:
            typer.echo(f"warning: {done.warning}", err=True)


@contextmanager
def _as_options() -> Iterator[None]:
    """Errors of an export name what its user gave: options of this command."""
    from metatune.artefact import ArtefactError

    try:
        yield
    except ArtefactError as error:
        raise error.as_options(OPTIONS) from error
