"""What may be said of a source: certain, hedged or nothing, and how many labels would tell."""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import t

from fewshot.metrics.interval import Estimate, mean_interval
from fewshot.transfer.chance import (
    BASE,
    PER_GAIN,
    PER_SKILL,
    ROUGH,
    ROUGH_SKILL,
    USUAL,
    WEIGHT,
    chance_of_harm,
    standard_error,
)
from fewshot.transfer.verdict import NEGLIGIBLE, leaning, needed, negligible, verdict

QUANTILE = float(t.ppf(0.975, 39))


def gain(points: float) -> Estimate:
    return Estimate(points / 100, 0.05, 40)


def skill(errors: float) -> Estimate:
    return Estimate(0.02 * errors, 0.02 * QUANTILE, 40)  # a standard error of 0.02


@pytest.mark.parametrize(
    ("points", "errors", "chance", "sign", "hint"),
    [
        (6, 0.0, 0.2, 1, 1),  # the interval excludes zero: the Brier score is not asked
        (-6, 0.0, 0.8, -1, -1),
        (3, 1.7, 0.2, 1, 1),  # one-sided 95 % of t with 39 degrees of freedom is 1.685 standard errors
        (3, 1.6, 0.2, 0, 0),
        (3, -3.0, 0.2, 0, 0),  # the two disagree
        (-3, -1.7, 0.6, -1, -1),
        (-3, -1.6, 0.6, 0, -1),
        (0, -3.0, 0.6, 0, -1),
        (3, 0.0, 0.14, 0, 1),  # nothing is certain, but harm is unlikely
        (3, 0.0, 0.16, 0, 0),
        (3, 0.0, 0.34, 0, -1),
        (-6, -3.0, 0.49, 0, -1),  # the chance contradicts what looks certain
        (6, 3.0, 0.34, 0, -1),
    ],
)
def test_verdict_is_of_differences_that_the_chance_of_harm_does_not_contradict(
    points: float, errors: float, chance: float, sign: int, hint: int
) -> None:
    assert verdict(gain(points), skill(errors), chance) == sign
    assert leaning(gain(points), skill(errors), chance) == hint


def test_chance_is_a_logistic_regression_on_the_shrunk_gain_and_the_skill() -> None:
    rng = np.random.default_rng(0)
    right, alone, saved = rng.integers(0, 2, 30), rng.integers(0, 2, 30), 0.1 * rng.normal(size=30)
    shrunk = np.concatenate([alone, np.full(WEIGHT, USUAL)]).mean()  # as if of ten more items
    spread = np.hypot((right - alone).std(ddof=1) / np.sqrt(30), ROUGH)
    z = (right.mean() - shrunk) / spread
    s = saved.mean() / np.hypot(saved.std(ddof=1) / np.sqrt(30), ROUGH_SKILL)
    found = chance_of_harm(*map(mean_interval, ((right - alone).astype(float), saved, alone.astype(float))))
    assert found == pytest.approx(expit(BASE + PER_GAIN * z + PER_SKILL * s))


def test_chance_falls_with_gain_and_skill_and_a_poor_target_is_not_trusted() -> None:
    usual = Estimate(USUAL, 0.1, 40)
    chances = [chance_of_harm(gain(p), skill(0), usual) for p in (-30, -6, -3, 0, 3, 6, 30)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.9 > 0.1 > chances[-1]
    assert chance_of_harm(gain(0), skill(2), usual) < chance_of_harm(gain(0), skill(-2), usual)
    assert chance_of_harm(gain(3), skill(0), Estimate(0.4, 0.1, 40)) > chances[4]


def test_one_item_gives_no_verdict() -> None:
    one = Estimate(0.5, math.nan, 1)
    assert math.isnan(chance_of_harm(one, one, one))
    assert math.isnan(standard_error(one))
    assert verdict(one, one, math.nan) == leaning(one, one, math.nan) == 0


def test_as_many_items_as_needed_give_an_interval_without_zero() -> None:
    rng = np.random.default_rng(0)
    values = rng.choice([-1.0, 0.0, 0.0, 0.0, 1.0], 50, p=[0.1, 0.25, 0.25, 0.25, 0.15])
    seen = mean_interval(values)
    assert 0 < seen.mean < seen.half_width
    copies = math.ceil(needed(seen) / 50)
    assert copies > 1
    more, fewer = (mean_interval(np.tile(values, k)) for k in (copies, copies - 1))  # the same mean and spread
    assert more.half_width < more.mean
    assert fewer.half_width > fewer.mean
    none = Estimate(0.0, 0.1, 30)
    assert needed(none) == math.ceil(30 * (0.1 / NEGLIGIBLE) ** 2)


@pytest.mark.parametrize(
    ("mean", "half_width", "none"), [(0.01, 0.009, True), (-0.01, 0.011, False), (0.0, 0.02, True)]
)
def test_no_difference_is_an_interval_within_two_points(mean: float, half_width: float, none: bool) -> None:
    assert negligible(Estimate(mean, half_width, 90)) == none


@pytest.mark.parametrize(("n", "none"), [(4, False), (149, False), (150, True)])
def test_few_items_of_which_none_changed_do_not_show_that_there_is_no_difference(n: int, none: bool) -> None:
    assert negligible(Estimate(0.0, 0.0, n)) == none
    assert needed(Estimate(0.0, 0.0, n)) == 150
