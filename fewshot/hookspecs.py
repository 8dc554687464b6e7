"""The hooks a plugin may implement. Each `register` callback raises in the plugin's own frame when it is misused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from fewshot.datasets import Dataset
    from fewshot.encoders import Encoder
    from fewshot.strategy import Strategy


hookspec = pluggy.HookspecMarker("fewshot")
hookimpl = pluggy.HookimplMarker("fewshot")


@hookspec
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Call `register(cls)` for each Strategy class; it is known by `cls.name`."""


@hookspec
def register_encoders(register: Callable[[type[Encoder]], None]) -> None:
    """Call `register(cls)` for each Encoder class; it answers to names that start with `cls.prefix`."""


@hookspec
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Call `register(cls)` for each Dataset class; it is known by `cls.name`."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to the `fewshot` command line, from an entry point of group `fewshot.commands`."""
