"""Does the source help or hurt? What the differences from the target alone allow to say."""

from __future__ import annotations

import math

from fewshot.metrics.interval import Estimate, t_quantile

SURE, ONE_SIDED = 0.975, 0.95


def verdict(gain: Estimate, skill: Estimate) -> int:
    """1 if the source helps, -1 if it hurts, 0 where neither is certain.

    `gain` is the difference in accuracy, `skill` that in Brier score, both positive where the source is better. Certain
    is a 95 % interval of the gain without zero, or a gain whose sign the skill confirms with 95 % on that side. Few
    items seldom change enough answers to show a moderate harm; their probabilities show it sooner.
    """
    return surely(gain) or _confirmed(gain, beyond(skill, t_quantile(ONE_SIDED, skill.n - 1) if skill.n > 1 else 0.0))


def leaning(gain: Estimate, skill: Estimate) -> int:
    """The verdict, or else the sign of a gain that the skill confirms by more than one standard error."""
    return verdict(gain, skill) or _confirmed(gain, beyond(skill, 1.0))


def surely(gain: Estimate) -> int:
    """1 for a gain whose interval lies above zero, -1 for one below, 0 otherwise."""
    return beyond(gain, t_quantile(SURE, gain.n - 1) if gain.n > 1 else 0.0)


def beyond(difference: Estimate, errors: float) -> int:
    """Sign of a difference of more than so many standard errors, else 0."""
    if math.isnan(difference.half_width):
        return 0
    error = difference.half_width / t_quantile(SURE, difference.n - 1)
    return (difference.mean > errors * error) - (difference.mean < -errors * error)


def _confirmed(gain: Estimate, sign: int) -> int:
    return sign if sign * gain.mean > 0 else 0
