"""The command line, a file a command. Thin: what takes long to import is imported inside them."""

from collections.abc import Sequence

import typer

from metatune.cli.bench import benchmark
from metatune.cli.check import check
from metatune.cli.export import export
from metatune.cli.fit import fit
from metatune.cli.plan import plan
from metatune.cli.recipes import copy_recipe, list_recipes, validate
from metatune.cli.replay import replay
from metatune.cli.root import root
from metatune.cli.score import score
from metatune.cli.show import show
from metatune.cli.train import train
from metatune.runs import stops

ABORTED = 1
"""Typer's exit code after an interrupt that no command has caught."""

app = typer.Typer(
    help="Tune learning rates and data mixtures by differentiating through the training.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.callback()(root)
COMMANDS = {
    "fit": fit,
    "plan": plan,
    "check": check,
    "show": show,
    "export": export,
    "train": train,
    "replay": replay,
    "score": score,
    "ls": list_recipes,
    "cp": copy_recipe,
    "validate": validate,
    "bench": benchmark,
}
"""In the order of `metatune --help`."""

for name, command in COMMANDS.items():
    app.command(name)(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line on `arguments`, those of the process by default.

    Raises:
        SystemExit: always, with the exit code.
    """
    with stops.listening():
        try:
            app(arguments)
        except SystemExit as end:
            # Where the signal came while a command was still importing, Typer has caught it.
            if stops.heard() and end.code == ABORTED:
                raise SystemExit(stops.exit_code()) from None
            raise
