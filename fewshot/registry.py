"""Find plugins, isolate the broken ones, and look up what they register."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from fewshot import hookspecs
from fewshot.errors import PluginError, unknown

if TYPE_CHECKING:
    import click

    from fewshot.datasets import Dataset
    from fewshot.encoders import Encoder
    from fewshot.strategy import Strategy

T = TypeVar("T")

GROUP = "fewshot"  # entry points that register strategies, encoders, datasets
COMMAND_GROUP = "fewshot.commands"  # entry points that add commands; loaded at every start, so they import little


@dataclass(slots=True)
class PluginRow:
    """One plugin as `fewshot plugins` shows it."""

    name: str
    module: str
    distribution: str
    version: str
    hooks: list[str] = field(default_factory=list)
    error: str = ""


class Registry:
    """What the plugins of this environment register, each under its name with the plugin that brought it."""

    def __init__(self) -> None:
        self.plugins: list[PluginRow] = []
        self.strategies: dict[str, type[Strategy]] = {}
        self.encoders: dict[str, type[Encoder]] = {}
        self.datasets: dict[str, type[Dataset]] = {}
        self._owner: dict[tuple[str, str], str] = {}

    def strategy(self, name: str) -> type[Strategy]:
        """Return the strategy class called `name`, or raise UnknownName."""
        return _look_up("strategy", name, self.strategies)

    def encoder(self, prefix: str) -> type[Encoder]:
        """Return the encoder class that answers to `prefix`, or raise UnknownName."""
        return _look_up("encoder", prefix, self.encoders)

    def dataset(self, name: str) -> type[Dataset]:
        """Return the dataset class called `name`, or raise UnknownName."""
        return _look_up("dataset", name, self.datasets)

    def load(self, plugin: object, row: PluginRow, cli: click.Group | None = None) -> None:
        """Check a plugin's hooks and call them.

        Nothing of a plugin that fails half way stays registered.

        Raises
        ------
        PluginError
            for no hook at all, a misspelt one, a wrong type or a taken name.
        """
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(hookspecs)
        try:
            manager.register(plugin, row.name)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"plugin {row.name!r}: {' '.join(str(error).split())}") from error
        before = dict(self.strategies), dict(self.encoders), dict(self.datasets), dict(self._owner)
        row.hooks = sorted(caller.name for caller in manager.get_hookcallers(plugin) or [])
        if not row.hooks:
            raise PluginError(
                f"plugin {row.name!r} has no hook; mark one with @hookimpl, e.g. register_strategies(register)"
            )
        try:
            manager.hook.register_strategies(register=self._register("strategy", row.name, self.strategies))
            manager.hook.register_encoders(register=self._register("encoder", row.name, self.encoders))
            manager.hook.register_datasets(register=self._register("dataset", row.name, self.datasets))
            if cli is not None:
                manager.hook.register_commands(cli=cli)
        except Exception:
            self.strategies, self.encoders, self.datasets, self._owner = before
            raise

    def _register(self, kind: str, plugin: str, table: dict[str, Any]) -> Callable[[type], None]:
        attribute = "prefix" if kind == "encoder" else "name"

        def register(cls: type) -> None:
            if not (inspect.isclass(cls) and issubclass(cls, _base(kind)) and not inspect.isabstract(cls)):
                raise PluginError(
                    f"plugin {plugin!r} registers {cls!r}, which is not a concrete {kind} class{_why(cls, kind)}"
                )
            name = getattr(cls, attribute, None)
            if not isinstance(name, str) or not name or any(c.isspace() or c == "," for c in name):
                raise PluginError(f"plugin {plugin!r}: {cls.__name__}.{attribute} must be one word, got {name!r}")
            if kind == "strategy":
                _check_declared(plugin, cls)
            taken = self._owner.setdefault((kind, name), plugin)
            if taken != plugin or name in table:
                raise TakenName(
                    f"{kind} {name!r} is registered by both plugin {taken!r} and plugin {plugin!r}; rename one, "
                    f"or leave one out: FEWSHOT_DISABLE_PLUGINS={plugin}"
                )
            table[name] = cls

        return register


class TakenName(PluginError):
    """Two plugins claim one name; raised always, since guessing would change results silently."""


def _base(kind: str) -> type:
    if kind == "strategy":
        from fewshot.strategy import Strategy

        return Strategy
    if kind == "encoder":
        from fewshot.encoders import Encoder

        return Encoder
    from fewshot.datasets import Dataset

    return Dataset


def _why(cls: object, kind: str) -> str:
    if not inspect.isclass(cls):
        return "; register the class itself" if isinstance(cls, _base(kind)) else ""
    lacks = sorted(getattr(cls, "__abstractmethods__", ())) if issubclass(cls, _base(kind)) else []
    return f": it lacks {', '.join(lacks)}" if lacks else f"; derive it from {_base(kind).__name__}"


def _check_declared(plugin: str, cls: type) -> None:
    """Refuse a strategy whose declaration would only fail when someone uses it."""
    from fewshot.strategy import NEEDS

    if not dataclasses.is_dataclass(cls):
        raise PluginError(f"plugin {plugin!r}: {cls.__name__} is no dataclass; put @dataclass(frozen=True) above it")
    for field_name in ("needs", "uses"):
        value = getattr(cls, field_name)
        if not isinstance(value, frozenset) or value - set(NEEDS):
            raise PluginError(
                f"plugin {plugin!r}: {cls.__name__}.{field_name} must be a frozenset of {', '.join(NEEDS)}, got "
                f"{value!r}"
            )


def _look_up(kind: str, name: str, table: dict[str, type[T]]) -> type[T]:
    if name not in table:
        raise unknown(kind, name, table)
    return table[name]


def strict() -> bool:
    """Whether a broken plugin stops the program (`FEWSHOT_STRICT_PLUGINS=1`) instead of being skipped."""
    return os.environ.get("FEWSHOT_STRICT_PLUGINS", "") not in ("", "0")


def disabled() -> set[str]:
    """Names of the plugins left out through `FEWSHOT_DISABLE_PLUGINS=a,b`."""
    return {name.strip() for name in os.environ.get("FEWSHOT_DISABLE_PLUGINS", "").split(",") if name.strip()}


def _entry_points(group: str) -> list[tuple[EntryPoint, Distribution]]:
    """Entry points of the installed distributions, ours first, then by name."""
    found = [(point, point.dist) for point in entry_points(group=group) if point.dist is not None]
    return sorted(found, key=lambda pair: (pair[1].name != "fewshot", pair[0].name))


def load_group(into: Registry, group: str, cli: click.Group | None = None) -> None:
    """Load every plugin of an entry point group on its own; a broken one is recorded and skipped, or raises if strict.

    Raises
    ------
    TakenName
        when two plugins claim one name.
    PluginError
        in strict mode, for any broken plugin.
    """
    for point, dist in _entry_points(group):
        if point.name in disabled():
            continue
        row = PluginRow(point.name, point.value, dist.name, dist.version)
        into.plugins.append(row)
        try:
            into.load(point.load(), row, cli)
        except TakenName:
            raise
        except (Exception, SystemExit) as error:  # a foreign plugin may raise anything, and scripts call sys.exit
            row.error = f"{type(error).__name__}: {error}" if not isinstance(error, PluginError) else str(error)
            if strict():
                raise PluginError(f"plugin {row.name!r} of {row.distribution} failed: {row.error}") from error
            warnings.warn(f"plugin {row.name!r} of {row.distribution} is skipped: {row.error}", stacklevel=2)


@functools.cache
def registry() -> Registry:
    """Return the registry of this process, loaded on first use (imports torch)."""
    found = Registry()
    load_group(found, GROUP)
    return found
