"""Scores of how well an encoder's embeddings suit labelled target items, without training anything.

Each takes embeddings x [n, D] or source probabilities [n, Z], and labels [n] int64 in [0, C); larger is better.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewshot.task import one_hot
from fewshot.transfer.spectrum import spectrum

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # tried by leave-one-out ridge; embeddings have length 1
ROUNDS = 100


def logme(x: Tensor, labels: Tensor) -> float:
    """Mean log evidence a label of Bayesian linear regressions onto the one-hot labels, at their likeliest alpha, beta.

    You, Liu, Wang, Long 2021, arXiv:2102.11005: y = F w + noise with w ~ N(0, I / alpha), noise ~ N(0, I / beta). The
    fixed point (MacKay) is gamma = sum s / (s + t), t = alpha / beta, alpha = gamma / |m|^2,
    beta = (n - gamma) / |y - F m|^2, m the posterior mean and s the squared singular values of F. The D - R directions
    that no item has cancel from the evidence:
    2 log p(y) = R log alpha + n log beta - sum log(alpha + beta s) - beta |y - F m|^2 - alpha |m|^2 - n log 2 pi.
    """
    u, s = spectrum(x)  # [n, R], [R]
    n, y = len(x), one_hot(labels, int(labels.max()) + 1, torch.float64)  # [n, C]
    z2 = (u.mT @ y).square()  # [R, C]
    outside = (y.square().sum(0) - z2.sum(0)).clamp_min(0)  # [C] of |y|^2, what no weights can fit
    alpha = beta = torch.ones(y.shape[1], dtype=torch.float64, device=x.device)  # [C]
    column = s.unsqueeze(-1)  # [R, 1]
    for _ in range(ROUNDS):
        t = alpha / beta  # [C]
        gamma = (column / (column + t)).sum(0)
        m2 = (column * z2 / (column + t).square()).sum(0)
        residual = (z2 * (t / (column + t)).square()).sum(0) + outside
        alpha, beta = gamma / m2.clamp_min(1e-12), (n - gamma) / residual.clamp_min(1e-12)
        if bool(((alpha / beta - t).abs() <= 1e-6 * t).all()):
            break
    t = alpha / beta
    m2 = (column * z2 / (column + t).square()).sum(0)
    residual = (z2 * (t / (column + t)).square()).sum(0) + outside
    twice = len(s) * alpha.log() + n * beta.log() - (alpha + beta * column).log().sum(0) - n * math.log(2 * math.pi)
    return float((twice - beta * residual - alpha * m2).mean() / 2 / n)


def h_score(x: Tensor, labels: Tensor) -> float:
    """Shrunk H-score: tr(S_a^-1 (1 - a) S_z), S_a the Ledoit-Wolf covariance of x and S_z that of its class means.

    Bao et al. 2019 (ICIP), with the shrinkage of Ibrahim, Ponomareva, Mazumder 2021, arXiv:2110.06893:
    S_a = (1 - a) S + a tr(S) / D I. In [0, C - 1]. Computed in the span of the items, of which S_z is part.
    """
    x = x.double()
    x = x - x.mean(0)
    n, dim = x.shape
    u, s = spectrum(x)  # [n, R], [R]
    variance = s / n  # [R]
    share = ledoit_wolf(x, variance)
    hot = one_hot(labels, int(labels.max()) + 1, torch.float64)  # [n, C]
    count = hot.sum(0)  # [C]
    means = hot.mT @ u * s.sqrt() / count.clamp_min(1).unsqueeze(-1)  # [C, R] in principal axes
    between = (count.unsqueeze(-1) * means.square()).sum(0) / n  # [R]
    return float((1 - share) * (between / ((1 - share) * variance + share * variance.sum() / dim)).sum())


def ledoit_wolf(x: Tensor, variance: Tensor) -> float:
    """Weight of the sphere in Ledoit and Wolf's (2004) covariance, from centred items and their principal variances.

    a = min(b, d) / d with d = |S - m I|^2 / D, m = tr(S) / D, and b = (sum |x_i|^4 / n - |S|^2) / (n D).
    """
    n, dim = x.shape
    square, m = float(variance.square().sum()), float(variance.sum()) / dim
    distance = (square - dim * m * m) / dim
    noise = (float(x.square().sum(-1).square().mean()) - square) / (n * dim)
    return 0.0 if distance <= 0 else max(0.0, min(noise, distance) / distance)


def leep(probability: Tensor, labels: Tensor) -> float:
    """Mean log of the expected empirical prediction. Nguyen, Hassner, Seeger, Archambeau 2020, arXiv:2002.12462.

    With theta_z(x) the source classifier's probabilities and P(y, z) = mean_i theta_z(x_i) [y_i = y],
    LEEP = mean_i log sum_z P(y_i | z) theta_z(x_i); at most 0.
    """
    theta = probability.double()  # [n, Z]
    joint = one_hot(labels, int(labels.max()) + 1, torch.float64).mT @ theta  # [C, Z]
    given = joint / joint.sum(0, keepdim=True).clamp_min(1e-300)  # [C, Z] P(y | z)
    return float((given[labels] * theta).sum(-1).clamp_min(1e-300).log().mean())


def nce(source_labels: Tensor, labels: Tensor) -> float:
    """Negative conditional entropy -H(Y | Z) in nats, Z what a source classifier calls the target's items. At most 0.

    Tran, Nguyen, Hassner 2019, arXiv:1908.08142.
    """
    z = one_hot(source_labels, int(source_labels.max()) + 1, torch.float64)  # [n, Z]
    joint = one_hot(labels, int(labels.max()) + 1, torch.float64).mT @ z / len(labels)  # [C, Z]
    given = joint / joint.sum(0, keepdim=True).clamp_min(1e-300)
    return float(torch.xlogy(joint, given).sum())


def loo_ridge(x: Tensor, labels: Tensor) -> float:
    """Leave-one-out accuracy, in [0, 1], of a ridge regression onto the one-hot labels; see `left_out_scores`."""
    return float((left_out_scores(x, labels).argmax(-1) == labels).double().mean())


def left_out_scores(x: Tensor, labels: Tensor) -> Tensor:
    """Scores of each item by the ridge regression without it, at the penalty of least squared error.  -> [n, C]

    Leaving out item i changes its residual from r_i to r_i / (1 - H_ii), H taking targets to fitted values, intercept
    included.
    """
    n, hot = len(x), one_hot(labels, int(labels.max()) + 1, torch.float64)  # [n, C]
    y = hot - hot.mean(0)
    u, s = spectrum(x.double() - x.double().mean(0))  # [n, R], [R]
    best, least = y, math.inf
    for penalty in PENALTIES:
        keep = s / (s + penalty)  # [R]
        leverage = u.square() @ keep + 1 / n  # [n]
        wrong = (y - u @ (keep.unsqueeze(-1) * (u.mT @ y))) / (1 - leverage).clamp_min(1e-9).unsqueeze(-1)
        if float(wrong.square().sum()) < least:
            best, least = hot - wrong, float(wrong.square().sum())
    return best
