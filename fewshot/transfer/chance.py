"""How likely is it that the source hurts? A probability from few held-out items, fitted to pairs of known harm."""

from __future__ import annotations

import math

from fewshot.metrics.interval import Estimate, t_quantile

# chosen on a nearly flat grid
USUAL, WEIGHT = 0.7, 8  # accuracy that the target alone is drawn to, as if by so many more items
ROUGH, ROUGH_SKILL = 0.05, 0.02  # errors beside that of the items: other draws, other rounds
# of least log-loss on the pairs of benchmarks/transfer_chance.py, which has how often sources hurt that looked alike
BASE, PER_GAIN, PER_SKILL = -0.92, -1.01, -0.23


def chance_of_harm(gain: Estimate, skill: Estimate, alone: Estimate) -> float:
    """Probability that source + target is worse than the target alone, as accuracies on more items would show.

    1 / (1 + exp(-(BASE + PER_GAIN z + PER_SKILL s))), a logistic regression (Cox 1958) on two differences in standard
    errors: z of accuracies, s of Brier scores. The accuracy a of the target alone on n held-out items is shrunk to
    (n a + WEIGHT USUAL) / (n + WEIGHT) before: where few items make it look bad, the source looks better than it is.
    NaN for fewer than two items.

    Parameters
    ----------
    gain, skill
        differences with the source less without, in accuracy and in Brier score; positive where it is better.
    alone
        accuracy of the target alone, in [0, 1].
    """
    shift = WEIGHT * (USUAL - alone.mean) / (alone.n + WEIGHT)  # what shrinking adds to the accuracy alone
    z = (gain.mean - shift) / math.hypot(standard_error(gain), ROUGH)
    s = skill.mean / math.hypot(standard_error(skill), ROUGH_SKILL)
    return 1 / (1 + math.exp(-(BASE + PER_GAIN * z + PER_SKILL * s)))


def standard_error(difference: Estimate) -> float:
    """Standard error of a mean from the half width of its interval; NaN where there is none."""
    return difference.half_width / t_quantile(0.975, difference.n - 1) if difference.n > 1 else math.nan
