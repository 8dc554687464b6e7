"""Means with 95 % half widths: Student's t over episodes, a jackknife over groups, a bootstrap of differences."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, its 95 % half width (NaN when n < 2), and the number of values it rests on."""

    mean: float
    half_width: float
    n: int


def t_cdf(t: float, df: int) -> float:
    """P(T <= t) of Student's t with a whole number of degrees of freedom (Abramowitz, Stegun 1964, 26.7.3-4).

    With theta = atan(t / sqrt(df)), P(|T| <= t) is a finite sum of odd (df odd) or even (df even) powers of cos(theta).
    """
    theta = math.atan2(abs(t), math.sqrt(df))
    cos, sin = math.cos(theta), math.sin(theta)
    k = np.arange(1, (df + 1) // 2 if df % 2 else df // 2, dtype=np.float64)
    if df % 2:
        terms = cos * np.cumprod(np.concatenate([[1.0], 2 * k[:-1] / (2 * k[:-1] + 1) * cos**2])) if df > 1 else k
        both = 2 / math.pi * (theta + sin * float(terms.sum()))
    else:
        both = sin * float(np.cumprod(np.concatenate([[1.0], (2 * k - 1) / (2 * k) * cos**2])).sum())
    return 0.5 + math.copysign(both / 2, t)


@functools.cache
def t_quantile(p: float, df: int) -> float:
    """Return t with P(T <= t) = p for p in (0, 1), by bisection on the angle of `t_cdf`."""
    low, high = -math.pi / 2, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        below = t_cdf(math.tan(middle) * math.sqrt(df), df) < p
        low, high = (middle, high) if below else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(df)


def mean_interval(values: Floats) -> Estimate:
    """Mean of independent values with the half width of its 95 % t interval; NaN values are left out."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    n = len(kept)
    if n < 2:
        return Estimate(float(kept[0]) if n else math.nan, math.nan, n)
    error = float(kept.std(ddof=1)) / math.sqrt(n)
    return Estimate(float(kept.mean()), t_quantile(0.975, n - 1) * error, n)


def jackknife(whole: float, left_out: Floats, n: int) -> Estimate:
    """Interval of a pooled statistic from its values with each of G groups left out (Tukey 1958).

    The variance is (G - 1) / G times the sum of squared deviations; `n` is what the statistic rests on.
    """
    groups = len(left_out)
    if groups < 2:
        return Estimate(whole, math.nan, n)
    error = math.sqrt((groups - 1) * float(np.var(left_out)))
    return Estimate(whole, t_quantile(0.975, groups - 1) * error, n)


def bootstrap(values: Floats, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean, from `draws` resamples with replacement (Efron 1979); NaN when n < 2."""
    generator = np.random.default_rng(seed)
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    means = [float(values[generator.integers(0, n, n)].mean()) for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
