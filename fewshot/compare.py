"""Paired comparison: two results on the same episodes, difference by difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot.metrics.interval import Estimate, bootstrap, mean_interval
from fewshot.report import Report, Result


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much better `second` is than `first`, in accuracy, on the episodes they share."""

    first: Result
    second: Result
    difference: Estimate  # mean of second - first, with the half width of its 95 % t interval
    bootstrap: tuple[float, float]  # 95 % percentile interval of the same mean
    wins: int  # episodes in which `second` is better
    ties: int
    losses: int


def compare(first: Result, second: Result) -> Comparison | None:
    """Compare two results; None unless both met the same episodes of the same data."""
    if (first.data, first.episodes) != (second.data, second.episodes):
        return None
    gain = np.asarray(second.accuracies) - np.asarray(first.accuracies)
    return Comparison(
        first,
        second,
        mean_interval(gain),
        bootstrap(gain),
        int((gain > 0).sum()),
        int((gain == 0).sum()),
        int((gain < 0).sum()),
    )


def compare_reports(first: Report, second: Report) -> list[Comparison]:
    """Compare each result of `first` with each of `second` that met the same episodes.

    Results that differ in neither strategy nor encoder meet first; where there are none, all pairs are compared.
    """
    same = [(a, b) for a in first.results for b in second.results if _who(a) == _who(b)]
    pairs = same or [(a, b) for a in first.results for b in second.results]
    return _compared(pairs)


def compare_within(report: Report) -> list[Comparison]:
    """Compare the first strategy of each data set and set of episodes with the others.

    Data sets whose labels follow each other alike have the same episodes, but not the same items.
    """
    firsts: dict[tuple[str, str], Result] = {}
    pairs = []
    for result in report.results:
        base = firsts.setdefault((result.dataset, result.episodes), result)
        if base is not result:
            pairs.append((base, result))
    return _compared(pairs)


def _who(result: Result) -> tuple[str, str, str, str]:
    return result.dataset, result.encoder, result.strategy, f"{sorted(result.options.items())} {result.calibrated}"


def _compared(pairs: Sequence[tuple[Result, Result]]) -> list[Comparison]:
    found = (compare(a, b) for a, b in pairs)
    return [c for c in found if c is not None]
