"""Checks that every strategy must pass; `strategy_checks(MyStrategy)` in a test of your own runs them all.

Each check takes a strategy and raises AssertionError with a text that says what went wrong. `STRATEGY_CHECKS` holds
them by name, so that pytest can show each on its own::

    @pytest.mark.parametrize("check", STRATEGY_CHECKS.values(), ids=STRATEGY_CHECKS.keys())
    def test_mine(check):
        check(MyStrategy())

A strategy with optional inputs (`uses`) is checked with and without them.
"""

from __future__ import annotations

from fewshot.strategy import Strategy
from fewshot.testing import contract, invariance  # noqa: F401 - importing them fills the table
from fewshot.testing.checking import STRATEGY_CHECKS


def strategy_checks(strategy: type[Strategy] | Strategy) -> None:
    """Run every check on a strategy, given as a class (its default options) or as an instance.

    Raises
    ------
    AssertionError
        from the first check that fails; the text begins with the names of the strategy and of the check.
    """
    instance = strategy() if isinstance(strategy, type) else strategy
    for check in STRATEGY_CHECKS.values():
        check(instance)
