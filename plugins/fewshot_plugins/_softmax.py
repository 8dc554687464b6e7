"""Multinomial logistic regressions to their optimum, many at once, by preconditioned conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ENOUGH = 0.3  # a line search ends where the slope is this share of what it was
TRIES = 8  # steps of a line search, at most
SMALL_PENALTY = 2e-3  # below it float32 cannot tell the optimum to four digits
LOWEST = -1e30  # score of a class that stands aside: finite, so that 0 times its log-probability is 0
TINY = 1e-30  # keeps 0 / 0 at bay once a task has arrived


Back = Callable[[Tensor], tuple[Tensor, Tensor]]  # w [*B, R, C] -> weight [*B, C, D], its score for the mean [*B, 1, C]


@dataclass(frozen=True, slots=True)
class Problem:
    """The regressions in coordinates of R = min(S, D) columns, with what is fixed during the search."""

    z: Tensor  # [*B, S, R] centred examples, 0 for padding
    y: Tensor  # [*B, S, C] targets, 0 for padding
    real: Tensor  # [*B, S, 1] 0 for padding
    n: Tensor  # [*B, 1, 1] number of examples
    penalty: Tensor  # [*B, 1, 1]
    inverse: Tensor  # [*B, R, R] of z'z / C + penalty
    shut: Tensor | None  # [*B, 1, C] classes that no example can belong to


@dataclass(frozen=True, slots=True)
class Point:
    """Where the search stands."""

    w: Tensor  # [*B, R, C]
    bias: Tensor  # [*B, 1, C]
    scores: Tensor  # [*B, S, C] z w + bias
    p: Tensor  # [*B, S, C] softmax of the scores
    loss: Tensor  # [*B, 1, 1] the objective


@dataclass(frozen=True, slots=True)
class Move:
    """A direction to go, with the gradient it was made from."""

    w: Tensor  # [*B, R, C]
    bias: Tensor  # [*B, 1, C]
    change: Tensor  # [*B, S, C] of the scores, z w + bias; 0 for padding
    slope: Tensor  # [*B, 1, 1] of the objective along it, negative
    gradient: tuple[Tensor, Tensor]  # [*B, R, C] of the weights, [*B, 1, C] of the bias
    square: Tensor  # [*B, 1, 1] of the gradient, in the preconditioner's metric


def softmax_regression(
    x: Tensor,
    y: Tensor,
    penalty: Tensor,
    *,
    shut: Tensor | None = None,
    tolerance: float = 1e-5,
    max_iter: int = 500,
) -> tuple[Tensor, Tensor]:
    """Minimise sum_i -y_i . log softmax(W x_i + b) + penalty / 2 |W|^2.  -> weight [*B, C, D], bias [*B, C]

    `x` [*B, S, D] are the examples, `y` [*B, S, C] their targets, of sum 1, or 0 for padding; `penalty` is [*B]; b is
    not penalised. This is scikit-learn's LogisticRegression with C = 1 / penalty. Classes in `shut` [*B, C] stand
    aside: their probability is 0, their weights and intercepts 0.

    Nonlinear conjugate gradients (Polak-Ribiere) preconditioned by the Hessian at W = 0, where every probability is
    1 / C: with x centred it is x'x / C + penalty for each class, and n / C for the intercept, apart. A task stops when
    |gradient|^2 / (2 penalty), the duality gap while the residuals sum to 0, together with a like term for the
    intercept, is below `tolerance` of the objective; when two steps have not lowered the objective; or after
    `max_iter` steps. Tasks of a batch stop on their own, so a batch gives what a loop gives.
    """
    if x.dtype != torch.float64 and float(penalty.min()) < SMALL_PENALTY:
        exact = softmax_regression(
            x.double(), y.double(), penalty.double(), shut=shut, tolerance=tolerance, max_iter=max_iter
        )
        return exact[0].to(x.dtype), exact[1].to(x.dtype)
    real = y.sum(-1, keepdim=True)  # [*B, S, 1]
    n = real.sum(-2, keepdim=True).clamp_min(1)  # [*B, 1, 1]
    z, back = (_wide if x.shape[-2] < x.shape[-1] else _tall)(x, real, n)
    bend = (z.mT @ z).double() / y.shape[-1] + penalty[..., None, None] * torch.eye(z.shape[-1], device=x.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(bend)).to(x.dtype)  # [*B, R, R]
    aside = None if shut is None else shut.unsqueeze(-2)  # [*B, 1, C]
    best = _search(Problem(z, y, real, n, penalty[..., None, None], inverse, aside), tolerance, max_iter)
    weight, shift = back(best.w)  # [*B, C, D], [*B, 1, C]
    bias = (best.bias - shift).squeeze(-2)  # [*B, C]
    return weight, bias if shut is None else bias.masked_fill(shut, 0)


def _tall(x: Tensor, real: Tensor, n: Tensor) -> tuple[Tensor, Back]:
    """Centred examples as they are.  -> z [*B, S, D], and w -> w' and its score for the mean"""
    mean = real.mT @ x / n  # [*B, 1, D]
    return (x - mean) * real, lambda w: (w.mT, mean @ w)


def _wide(x: Tensor, real: Tensor, n: Tensor) -> tuple[Tensor, Back]:
    """Centred examples in S columns: the Cholesky factor of their inner products, which is all a regression sees.

    The best weights lie in the span of the examples: w for the factor z are x' z'^-1 w for x. Everything but the last
    product is done on S x S matrices, centring too. What rounding may have taken is added to the diagonal, so that
    copies and padding do no harm.
    """
    gram = (x @ x.mT).double() * (real * real.mT)  # [*B, S, S]
    share = (real / n).double()  # [*B, S, 1]
    row = gram @ share  # [*B, S, 1] with the mean
    centred = (gram - row - row.mT + share.mT @ row) * (real * real.mT)  # [*B, S, S]
    largest = gram.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None].clamp_min(TINY)  # [*B, 1]
    centred.diagonal(dim1=-2, dim2=-1).add_((4 * torch.finfo(x.dtype).eps * n.squeeze(-1).sqrt() + 1e-11) * largest)
    factor = torch.linalg.cholesky(centred)

    def back(w: Tensor) -> tuple[Tensor, Tensor]:
        mix = torch.linalg.solve_triangular(factor.mT, w.double(), upper=True) * real  # [*B, S, C]
        mix = mix - real * (share.mT @ mix)  # of the examples as they are, not centred
        return mix.mT.to(x.dtype) @ x, (row.mT @ mix).to(x.dtype)

    return factor.to(x.dtype) * real, back


def _search(problem: Problem, tolerance: float, max_iter: int) -> Point:
    y, zero = problem.y, problem.z[..., :1, :].mT * 0 * problem.y[..., :1, :]  # [*B, R, C]
    point, move = _point(problem, zero, torch.zeros_like(y[..., :1, :]), torch.zeros_like(y)), None
    last = before = torch.full_like(point.loss, torch.inf)  # objective one and two steps ago
    active = torch.ones_like(point.loss, dtype=torch.bool)
    for _ in range(max_iter):
        residual = point.p - y  # [*B, S, C]
        g = problem.z.mT @ residual + problem.penalty * point.w  # [*B, R, C]
        g_bias = problem.real.mT @ residual  # [*B, 1, C]
        gap = _square(g) / (2 * problem.penalty) + y.shape[-1] * _square(g_bias) / (2 * problem.n)
        active = active & (gap > tolerance * point.loss) & (point.loss < before)
        if not bool(active.any()):
            break
        last, before = point.loss, last
        move = _conjugate(problem, g, g_bias, move)
        point = _advance(problem, point, move, active)
    return point


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)  # [*B, M, N] -> [*B, 1, 1]


def _square(a: Tensor) -> Tensor:
    return _dot(a, a)


def _point(problem: Problem, w: Tensor, bias: Tensor, scores: Tensor) -> Point:
    open_scores = scores if problem.shut is None else scores.masked_fill(problem.shut, LOWEST)
    log_p = torch.log_softmax(open_scores, -1)  # [*B, S, C]
    loss = problem.penalty / 2 * _square(w) - _dot(problem.y, log_p)
    return Point(w, bias, scores, log_p.exp_(), loss)


def _conjugate(problem: Problem, g: Tensor, g_bias: Tensor, old: Move | None) -> Move:
    """Downhill from here, conjugate to the last direction; straight down where that would hardly go down."""
    q, q_bias = problem.inverse @ g, g.shape[-1] / problem.n * g_bias  # [*B, R, C], [*B, 1, C]
    square = _dot(g, q) + _dot(g_bias, q_bias)
    if old is None:
        return Move(-q, -q_bias, -(problem.z @ q + problem.real * q_bias), -square, (g, g_bias), square)
    mixed = _dot(old.gradient[0], q) + _dot(old.gradient[1], q_bias)
    beta = ((square - mixed) / old.square.clamp_min(TINY)).clamp_min(0)
    uphill = _dot(g, old.w) + _dot(g_bias, old.bias)
    beta = torch.where(beta * uphill < square / 2, beta, torch.zeros_like(beta))
    w, bias = beta * old.w - q, beta * old.bias - q_bias
    change = beta * old.change - (problem.z @ q + problem.real * q_bias)  # [*B, S, C]
    return Move(w, bias, change, beta * uphill - square, (g, g_bias), square)


def _advance(problem: Problem, here: Point, move: Move, active: Tensor) -> Point:
    """Go along a direction to where the slope is a small part of what it is here, and the objective lower.

    Newton's step first; once the slope has changed its sign, the Illinois variant of regula falsi between the two ends.
    """
    along, size = _dot(here.w, move.w), _square(move.w)  # w . d, |d|^2
    zero = torch.zeros_like(move.slope)
    low, low_slope, high, high_slope = zero, move.slope, zero + torch.inf, zero  # slopes are < 0 and > 0 there
    bend = _bend(problem, here.p, move, size)
    gain = move.slope.square() / bend  # twice what the step should lower the objective by
    seeking = active & (gain > 1e-3 * torch.finfo(gain.dtype).eps * here.loss)  # else rounding leads astray
    step = torch.where(seeking, -move.slope / bend, zero)
    there = _go(problem, here, move, step)
    for _ in range(TRIES):
        slope = _dot(there.p - problem.y, move.change) + problem.penalty * (along + step * size)
        seeking = seeking & ((slope.abs() > ENOUGH * move.slope.abs()) | (there.loss > here.loss))
        if not bool(seeking.any()):
            break
        up = slope > 0
        low, high = torch.where(up, low, step), torch.where(up, step, high)
        low_slope = torch.where(up, low_slope / 2, slope)  # halving the end that stays keeps it from staying for ever
        high_slope = torch.where(up, slope, high_slope / 2)
        between = (low * high_slope - high * low_slope) / (high_slope - low_slope)
        further = torch.minimum(step - slope / _bend(problem, there.p, move, size), 8 * step)
        step = torch.where(seeking, torch.where(torch.isinf(high), further, between), step)
        there = _go(problem, here, move, step)
    worse = ~(there.loss <= here.loss)
    return _go(problem, here, move, torch.where(worse, low, step)) if bool(worse.any()) else there


def _go(problem: Problem, here: Point, move: Move, step: Tensor) -> Point:
    w, bias = here.w + step * move.w, here.bias + step * move.bias
    return _point(problem, w, bias, here.scores + step * move.change)


def _bend(problem: Problem, p: Tensor, move: Move, size: Tensor) -> Tensor:
    """Second derivative of the objective along a direction.  -> [*B, 1, 1]"""
    weighted = p * move.change  # [*B, S, C]
    mean = weighted.sum(-1, keepdim=True)  # [*B, S, 1]
    return (_dot(weighted, move.change) - _square(mean) + problem.penalty * size).clamp_min(TINY)
