"""For authors of plugins: check a strategy or an encoder against the contract, on inputs made up from a seed."""

from __future__ import annotations

from fewshot.testing.checking import STRATEGY_CHECKS
from fewshot.testing.encoders import ENCODER_CHECKS, encoder_checks
from fewshot.testing.strategies import strategy_checks
from fewshot.testing.toy import toy_queries, toy_task

__all__ = ["ENCODER_CHECKS", "STRATEGY_CHECKS", "encoder_checks", "strategy_checks", "toy_queries", "toy_task"]
