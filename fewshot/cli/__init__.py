"""The `fewshot` command line: a lazy group, so that `--help` imports no command and no torch."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from fewshot import __version__
from fewshot.errors import FewshotError, unknown
from fewshot.registry import COMMAND_GROUP, Registry, load_group

# name: (where the command lives, its one-line help, which must equal the command's own; a test compares them)
COMMANDS: dict[str, tuple[str, str]] = {
    "advise": ("fewshot.cli.advise:advise", "Say what to transfer from a source, whether it helps, and how."),
    "bench": ("fewshot.cli.bench:bench", "Measure strategies and encoders on many small tasks."),
    "classify": ("fewshot.cli.classify:classify", "Classify pictures, folders or an index."),
    "datasets": ("fewshot.cli.lists:datasets", "List the datasets that plugins register."),
    "duplicates": ("fewshot.cli.duplicates:duplicates", "List pictures of an index that are nearly the same."),
    "encoders": ("fewshot.cli.lists:encoders", "List the encoders that plugins register."),
    "finetune": ("fewshot.cli.finetune:finetune", "Train an encoder further, or a small one from scratch."),
    "find": ("fewshot.cli.find:find", "Find the pictures of each class in an index, by a fitted classifier."),
    "fit": ("fewshot.cli.fit:fit", "Learn a classifier and save it for `classify --model`."),
    "index": ("fewshot.cli.index:index", "Build, extend, shrink and describe an index of pictures."),
    "plugins": ("fewshot.cli.lists:plugins", "List the plugins, what they hook into, and which are broken."),
    "query": ("fewshot.cli.query:query", "Search an index by texts or pictures."),
    "strategies": ("fewshot.cli.lists:strategies", "List the strategies, or show one with its options."),
}


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turn every FewshotError, and whatever click finds wrong with the words, into one line and exit code 2.

    An interrupt, where the command has not more to say about it, has the exit code that a shell gives one: 130.
    """
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise  # nothing was asked for: the help is the answer
    except FewshotError as error:
        text = str(error)
    except click.UsageError as error:
        text = error.format_message()
        text += "" if text.endswith((".", "?")) else "."
        text += f" See: {error.ctx.command_path if error.ctx else 'fewshot'} -h"
    except KeyboardInterrupt:
        click.echo("\ninterrupted", err=True)
        raise click.exceptions.Exit(130) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, e.g. `| head`
        raise click.exceptions.Exit(1) from None
    except OSError as error:  # a disk that is full, a file where a folder should be ...
        text = f"{error.filename or 'output'}: {error.strerror or error}; free some space, or choose another place"
    else:
        return
    click.echo(f"error: {' '.join(text.split())}", err=True)
    raise click.exceptions.Exit(2)


class LazyGroup(click.Group):
    """A group that imports a command only when it runs, and says in one line what is wrong."""

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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest the nearest."""
        if args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            raise unknown("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the words before the command, with errors as one line on stderr."""
        with _in_one_line():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run, with errors as one line on stderr."""
        with _in_one_line():
            return super().invoke(ctx)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fewshot")
def cli() -> None:
    """Search and classify your own pictures with few or no labelled examples."""


def _interrupted(*_: object) -> None:
    """Stop in good order at the first Ctrl-C and at once at the second; nothing on disk depends on the order."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    raise KeyboardInterrupt


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the `fewshot` command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, _interrupted)
    warnings.formatwarning = _warn_in_one_line
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold bytes that are no text
    try:
        with _in_one_line():
            load_group(Registry(), COMMAND_GROUP, cli)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    cli.main(args=None if args is None else list(args), prog_name="fewshot")


def _warn_in_one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {message}\n"
