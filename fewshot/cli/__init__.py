"""The `fewshot` command line: a lazy group, so that `--help` imports no command and no torch."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence

import click

from fewshot import __version__
from fewshot.errors import FewshotError
from fewshot.registry import COMMAND_GROUP, Registry, load_group

# name: (where the command lives, its one-line help, which must equal the command's own; a test compares them)
COMMANDS: dict[str, tuple[str, str]] = {
    "bench": ("fewshot.cli.bench:bench", "Measure strategies and encoders on many small tasks."),
    "classify": ("fewshot.cli.classify:classify", "Classify pictures, folders or an index."),
    "datasets": ("fewshot.cli.lists:datasets", "List the datasets that plugins register."),
    "encoders": ("fewshot.cli.lists:encoders", "List the encoders that plugins register."),
    "fit": ("fewshot.cli.fit:fit", "Learn a classifier and save it for `classify --model`."),
    "index": ("fewshot.cli.index:index", "Build, extend, shrink and describe an index of pictures."),
    "plugins": ("fewshot.cli.lists:plugins", "List the plugins, what they hook into, and which are broken."),
    "query": ("fewshot.cli.query:query", "Search an index by texts or pictures."),
    "strategies": ("fewshot.cli.lists:strategies", "List the strategies, or show one with its options."),
}


class LazyGroup(click.Group):
    """A group that imports a command only when it runs, and turns every FewshotError into one line and exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of built-in commands and of those that plugins add."""
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write names and one-line helps without importing the commands."""
        rows = {name: text for name, (_, text) in COMMANDS.items()}
        for name, command in self.commands.items():
            rows[name] = command.get_short_help_str(90)
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run, with our own errors as one line on stderr."""
        try:
            return super().invoke(ctx)
        except FewshotError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except BrokenPipeError:
            sys.stderr.close()  # the reader of our output has gone, e.g. `| head`
            ctx.exit(1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fewshot")
def cli() -> None:
    """Search and classify your own pictures with few or no labelled examples."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the `fewshot` command."""
    warnings.formatwarning = _warn_in_one_line
    try:
        load_group(Registry(), COMMAND_GROUP, cli)
    except FewshotError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    cli.main(args=None if args is None else list(args), prog_name="fewshot")


def _warn_in_one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {message}\n"
