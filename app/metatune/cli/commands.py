"""All commands, and what becomes of a signal that none of them answers."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from metatune.cli.report import report
from metatune.cli.root import root
from metatune.cli.score import score
from metatune.cli.show import show
from metatune.cli.train import train
from metatune.cli.transfer import transfer
from metatune.cli.verdict import verdict
from metatune.cli.what_if import what_if
from metatune.runs import processes, stops

LONGEST_SENTENCE: Final = 1000
"""Characters: more than any has."""


@contextmanager
def answered() -> Iterator[None]:
    """Says of a signal that the command was interrupted, and exits with its code."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(stops.exit_code()) from None


class Commands(TyperGroup):
    """Commands in full in `--help`, on as many lines as it takes; signals in one line."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Reads the command line."""
        with answered():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Runs a command. One that is still importing answers no signal by itself."""
        with answered():
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists each command with the first sentence of its help."""
        rows = [(name, self._first_sentence(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _first_sentence(self, ctx: Any, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(LONGEST_SENTENCE) if command else ""


app = typer.Typer(
    cls=Commands,
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
    "transfer": transfer,
    "verdict": verdict,
    "what-if": what_if,
    "report": report,
    "replay": replay,
    "score": score,
    "ls": list_recipes,
    "cp": copy_recipe,
    "validate": validate,
    "explain": explain,
    "bench": benchmark,
}
"""In the order of `metatune --help`."""

JOINING: Final = ("fit", "train", "replay")
"""Whose processes are one run, where the environment tells of several."""
READING: Final = ("plan", "show", "ls", "validate", "explain")
"""Which leave nothing behind: several of them are in nobody's way."""


def alone(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """A command that is refused where it is started as several processes."""

    @functools.wraps(command)
    def refusing(*given: Any, **options: Any) -> None:
        try:
            processes.refuse_several(f"metatune {name}")
        except processes.ProcessesError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        command(*given, **options)

    return refusing


for name, command in COMMANDS.items():
    app.command(name)(command if name in JOINING + READING else alone(name, command))
