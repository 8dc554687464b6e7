"""For authors of plugins: check a strategy against the contract, on problems made up from a seed."""

from __future__ import annotations

from fewshot.testing.strategies import STRATEGY_CHECKS, strategy_checks
from fewshot.testing.toy import toy_queries, toy_task

__all__ = ["STRATEGY_CHECKS", "strategy_checks", "toy_queries", "toy_task"]
