"""Every registered strategy passes the whole check kit; the files and their declarations agree."""

import pkgutil
from importlib.metadata import distribution

import pytest

import fewshot_plugins
from fewshot.registry import COMMAND_GROUP, GROUP, registry
from fewshot.testing import STRATEGY_CHECKS


@pytest.mark.filterwarnings("ignore::fewshot_plugins._guard.GuardWarning")  # in order where all examples are one
@pytest.mark.parametrize("check", STRATEGY_CHECKS)
@pytest.mark.parametrize("name", sorted(registry().strategies))
def test_strategy_passes(name: str, check: str) -> None:
    STRATEGY_CHECKS[check](registry().strategy(name)())


def test_files_and_entry_points_agree() -> None:
    files = {m.name for m in pkgutil.iter_modules(fewshot_plugins.__path__) if not m.name.startswith("_")}
    declared = {
        point.name: point.value
        for point in distribution("fewshot").entry_points
        if point.group in (GROUP, COMMAND_GROUP) and point.value.startswith("fewshot_plugins.")
    }
    assert {value.removeprefix("fewshot_plugins.") for value in declared.values()} == files


def test_each_file_is_named_by_the_strategy_in_it() -> None:
    for row in registry().plugins:
        if row.module.startswith("fewshot_plugins."):
            own = [c for c in registry().strategies.values() if c.__module__ == row.module]
            assert row.name in {cls.name for cls in own}, row.module
