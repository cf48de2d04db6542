"""`metatune score`: texts rated, to choose what to train on."""

from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import Run, plain_errors


def score(
    run: Run,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Text files, .jsonl files with a 'text', or domains of the run's recipe.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="The file to write, a line of JSON for each text.")],
    keep: Annotated[
        float | None, typer.Option(help="Write this share of the texts alone, the best.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
) -> None:
    """Rate documents, or a domain's training sequences, with the tuned rater of a run.

    The best of them (--keep) can be trained on: a recipe reads --out as `jsonl`.
    """
    from metatune import score as scoring
    from metatune.recipe.file_errors import refuse_unmakeable

    if out.exists() and not overwrite:
        typer.echo(f"error: --out {out}: is there; --overwrite to replace it", err=True)
        raise typer.Exit(2)
    with plain_errors():
        refuse_unmakeable(out)
        done = scoring.score(scoring.scorer(run), inputs, out, keep)
        typer.echo(
            f"scored {done.texts:,}, wrote {done.written:,} of them with scores of "
            f"{done.least:.3f} and above to {out}"
        )
