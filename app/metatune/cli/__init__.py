"""The command line, a file a command. Thin: what takes long to import is imported inside them."""

import io
import sys
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

from metatune.cli.bench import benchmark
from metatune.cli.check import check
from metatune.cli.explain import explain
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

LONGEST_SENTENCE: Final = 1000
"""Characters: more than any has."""


class WholeSentences(TyperGroup):
    """Commands in full in `--help`, on as many lines as it takes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists each command with the first sentence of its help."""
        rows = [(name, self._first_sentence(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _first_sentence(self, ctx: Any, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(LONGEST_SENTENCE) if command else ""


app = typer.Typer(
    cls=WholeSentences,
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
    "explain": explain,
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A console that isn't UTF-8 can't show every name; that ends no command.
            stream.reconfigure(errors="replace")
    with stops.listening():
        try:
            app(arguments)
        except SystemExit as end:
            # Where the signal came while a command was still importing, Typer has caught it.
            if stops.heard() and end.code == ABORTED:
                raise SystemExit(stops.exit_code()) from None
            raise
