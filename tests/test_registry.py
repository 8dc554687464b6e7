"""Plugins: isolation of broken ones, taken names, and the switches."""

import types
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest

from fewshot import LinearHead, Strategy, Task, hookimpl
from fewshot import registry as registry_module
from fewshot.errors import PluginError, UnknownName
from fewshot.registry import PluginRow, Registry, TakenName, load_group, registry


@dataclass(frozen=True)
class Constant(Strategy):
    """A concrete strategy."""

    name = "constant"

    def fit(self, task: Task) -> LinearHead:
        return LinearHead(task.text.mean(-2))


def plugin(**hooks: object) -> types.ModuleType:
    module = types.ModuleType("plugin")
    for name, hook in hooks.items():
        setattr(module, name, hookimpl(hook))  # type: ignore[type-var]
    return module


def row(name: str = "mine") -> PluginRow:
    return PluginRow(name, "module", "distribution", "1")


def test_registers_and_looks_up() -> None:
    found, line = Registry(), row()
    found.load(plugin(register_strategies=lambda register: register(Constant)), line)
    assert found.strategy("constant") is Constant
    assert line.hooks == ["register_strategies"]


def test_misspelt_hook_is_refused_by_name() -> None:
    with pytest.raises(PluginError, match="register_strategys"):
        Registry().load(plugin(register_strategys=lambda register: None), row())


def test_wrong_argument_is_refused() -> None:
    with pytest.raises(PluginError, match="registry"):
        Registry().load(plugin(register_strategies=lambda registry: None), row())


@pytest.mark.parametrize("wrong", [Constant(), int, Strategy, "prototypical"])
def test_wrong_type_is_refused(wrong: object) -> None:
    with pytest.raises(PluginError, match="not a concrete strategy class"):
        Registry().load(plugin(register_strategies=lambda register: register(wrong)), row())


@pytest.mark.parametrize("bad", ["", "two words", "a,b", None])
def test_bad_name_is_refused(bad: object) -> None:
    cls = type("Bad", (Constant,), {"name": bad})
    with pytest.raises(PluginError, match="must be one word"):
        Registry().load(plugin(register_strategies=lambda register: register(cls)), row())


def test_taken_name_names_both_plugins() -> None:
    found = Registry()
    found.load(plugin(register_strategies=lambda register: register(Constant)), row("first"))
    with pytest.raises(TakenName, match=r"'constant'.*'first'.*'second'"):
        found.load(plugin(register_strategies=lambda register: register(Constant)), row("second"))


def test_nothing_of_a_failing_plugin_stays() -> None:
    def crash(register: object) -> None:
        register(Constant)  # type: ignore[operator]
        raise RuntimeError("half way")

    found = Registry()
    with pytest.raises(RuntimeError, match="half way"):
        found.load(plugin(register_strategies=crash), row())
    assert found.strategies == {}
    found.load(plugin(register_strategies=lambda register: register(Constant)), row("another"))


def test_unknown_names_suggest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'prototypical'"):
        registry().strategy("protypical")
    with pytest.raises(LookupError, match="unknown encoder 'nope'"):
        registry().encoder("nope")
    with pytest.raises(LookupError, match="unknown dataset 'nope'"):
        registry().dataset("nope")


@pytest.fixture
def fake_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Group "fewshot" holds one plugin that crashes on import, one that misspells a hook, and a good one."""
    (tmp_path / "crash_plugin.py").write_text("raise OSError('no such library')\n")
    hook = "from fewshot import hookimpl\n@hookimpl\ndef {}(register):\n    {}\n"
    (tmp_path / "typo_plugin.py").write_text(hook.format("register_strategy", "pass"))
    (tmp_path / "good_plugin.py").write_text(hook.format("register_datasets", "pass"))
    monkeypatch.syspath_prepend(tmp_path)

    class Dist(Distribution):
        def read_text(self, filename: str) -> str | None:
            return "Name: foreign\nVersion: 0.3\n" if filename == "METADATA" else None

        def locate_file(self, path: object) -> Path:
            return tmp_path

    points = [EntryPoint(n, f"{n}_plugin", "fewshot") for n in ("crash", "typo", "good")]
    monkeypatch.setattr(registry_module, "_entry_points", lambda group: [(p, Dist()) for p in points])
    return tmp_path


def test_broken_plugins_are_skipped_with_a_warning(fake_group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWSHOT_STRICT_PLUGINS", raising=False)
    found = Registry()
    with pytest.warns(UserWarning, match="is skipped") as caught:
        load_group(found, "fewshot")
    assert len(caught) == 2
    errors = {line.name: line.error for line in found.plugins}
    assert "OSError: no such library" in errors["crash"]
    assert "register_strategy" in errors["typo"]
    assert errors["good"] == ""
    assert [line.hooks for line in found.plugins if line.name == "good"] == [["register_datasets"]]


def test_strict_mode_raises(fake_group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSHOT_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="plugin 'crash' of foreign failed"):
        load_group(Registry(), "fewshot")


def test_disabled_plugins_are_left_out(fake_group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSHOT_DISABLE_PLUGINS", "crash, typo")
    found = Registry()
    load_group(found, "fewshot")
    assert [line.name for line in found.plugins] == ["good"]


def test_a_plugin_that_hooks_into_nothing_is_told() -> None:
    with pytest.raises(PluginError, match=r"has no hook.*@hookimpl"):
        Registry().load(types.ModuleType("plugin"), row())


def test_a_plugin_that_exits_is_skipped(fake_group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWSHOT_STRICT_PLUGINS", raising=False)
    (fake_group / "crash_plugin.py").write_text("import sys\nsys.exit('a script')\n")
    found = Registry()
    with pytest.warns(UserWarning, match="is skipped"):
        load_group(found, "fewshot")
    errors = {line.name: line.error for line in found.plugins}
    assert errors["crash"] == "SystemExit: a script"
    assert errors["good"] == ""
