"""Oracle: scipy.stats, and simulated coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from fewshot.metrics.interval import bootstrap, jackknife, mean_interval, t_cdf, t_quantile


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 10, 19, 99, 599, 9999])
def test_student_t_matches_scipy(df):
    for p in (0.5, 0.6, 0.9, 0.975, 0.995):
        assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-8, abs=1e-10)
    for t in (-3.0, -0.2, 0.0, 1.0, 12.0):
        assert t_cdf(t, df) == pytest.approx(stats.t.cdf(t, df), rel=1e-9, abs=1e-12)


def test_mean_interval_matches_scipy():
    values = np.random.default_rng(0).random(37)
    low, high = stats.t.interval(0.95, 36, values.mean(), stats.sem(values))
    found = mean_interval(values)
    assert (found.mean, found.half_width, found.n) == pytest.approx((values.mean(), (high - low) / 2, 37))
    assert mean_interval(np.append(values, np.nan)) == found


def test_one_value_has_no_interval():
    found = mean_interval(np.array([0.5]))
    assert found.mean == 0.5
    assert math.isnan(found.half_width)
    assert found.n == 1


def test_jackknife_of_a_mean_is_the_t_interval():
    values = np.random.default_rng(1).random(20)
    without = (values.sum() - values) / 19
    assert jackknife(values.mean(), without, 20).half_width == pytest.approx(mean_interval(values).half_width)


def test_bootstrap_matches_scipy():
    values = np.random.default_rng(2).normal(0.3, 1.0, 200)
    low, high = bootstrap(values, 4000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert bootstrap(values) == bootstrap(values)
