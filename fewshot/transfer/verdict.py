"""Does the source help or hurt? What the differences from the target alone allow to say, and what it takes to tell."""

from __future__ import annotations

import math

from fewshot.metrics.interval import Estimate, t_quantile
from fewshot.transfer.chance import standard_error

SURE, ONE_SIDED = 0.975, 0.95
LIKELY = 0.5  # least chance of harm for "it hurts"
MAY_HURT, MAY_HELP = 1 / 3, 0.15  # from which chance of harm on, and below which, a hint is given
NEGLIGIBLE = 0.02  # a difference in accuracy that is called none


def verdict(gain: Estimate, skill: Estimate, chance: float) -> int:
    """1 if the source helps, -1 if it hurts, 0 where neither is certain.

    `gain` is the difference in accuracy, `skill` that in Brier score, both positive where the source is better. Certain
    is a 95 % interval of the gain without zero, or a gain whose sign the skill confirms with 95 % on that side. Few
    items seldom change enough answers to show a moderate harm; their probabilities show it sooner. `chance`, that of
    harm by `fewshot.transfer.chance`, must not contradict.
    """
    sure = surely(gain) or _confirmed(gain, beyond(skill, t_quantile(ONE_SIDED, skill.n - 1) if skill.n > 1 else 0.0))
    return sure * (chance < MAY_HURT if sure > 0 else chance >= LIKELY)


def leaning(gain: Estimate, skill: Estimate, chance: float) -> int:
    """The verdict, or else -1 where the source may hurt and 1 where it may help, by the chance of harm."""
    return verdict(gain, skill, chance) or (chance < MAY_HELP) - (chance >= MAY_HURT)


def negligible(gain: Estimate) -> bool:
    """Whether the 95 % interval holds no difference worth a word.

    Where no answer changed on n items, up to 3 / n of all may change (rule of three: Hanley & Lippman-Hand 1983).
    """
    return abs(gain.mean) + (gain.half_width or 3 / gain.n) <= NEGLIGIBLE


def needed(gain: Estimate) -> int:
    """How many items, held out in turn, give a difference as large as this one an interval without zero.

    The half width h shrinks with the root of the number of items n: n (h / d)^2, d the size of the difference, or
    `NEGLIGIBLE` if that is more. Where no answer changed, as many as `negligible` wants.
    """
    if gain.half_width == 0:
        return math.ceil(3 / NEGLIGIBLE)
    return math.ceil(gain.n * (gain.half_width / max(abs(gain.mean), NEGLIGIBLE)) ** 2)


def surely(gain: Estimate) -> int:
    """1 for a gain whose interval lies above zero, -1 for one below, 0 otherwise."""
    return beyond(gain, t_quantile(SURE, gain.n - 1) if gain.n > 1 else 0.0)


def beyond(difference: Estimate, errors: float) -> int:
    """Sign of a difference of more than so many standard errors, else 0."""
    error = standard_error(difference)
    return (difference.mean > errors * error) - (difference.mean < -errors * error)


def _confirmed(gain: Estimate, sign: int) -> int:
    return sign if sign * gain.mean > 0 else 0
