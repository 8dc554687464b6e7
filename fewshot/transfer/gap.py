"""How far apart two domains lie, from embeddings of their items: x [n, D] and y [m, D]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.transfer.scores import left_out_scores

MOST = 1000  # items of a domain that are compared; more are sampled, since kernels take n^2
WIDTH_MOST = 4000  # items whose distances a kernel's width is taken from


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """Squared maximum mean discrepancy, unbiased (so it may be below 0), and its permutation p-value."""

    mmd2: float
    p: float  # in (0, 1], uniform when both come from one distribution


def sample(x: Tensor, most: int, seed: int) -> Tensor:
    """At most so many of the rows, drawn without replacement.  [n, D] -> [min(n, most), D]"""
    if len(x) <= most:
        return x
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:most].to(x.device)]


def rbf(x: Tensor, y: Tensor, width: float) -> Tensor:
    """Kernel exp(-|x - y|^2 / (2 width^2)).  [n, D], [m, D] -> [n, m]"""
    return torch.exp(-squared_distances(x, y) / (2 * width * width))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances of rows.  [n, D], [m, D] -> [n, m]"""
    return (x.square().sum(-1, keepdim=True) + y.square().sum(-1) - 2 * x @ y.mT).clamp_min(0)


def median_width(x: Tensor) -> float:
    """Median distance of different rows, the usual width of the kernel; 1 where all rows are one.

    Of more than `WIDTH_MOST` rows, so many are sampled.
    """
    x = sample(x, WIDTH_MOST, 0)
    square = squared_distances(x, x)
    upper = square[torch.triu_indices(len(x), len(x), 1).unbind()]
    width = float(upper.median().sqrt()) if len(upper) else 0.0
    return width if width > 1e-9 else 1.0


def mmd(x: Tensor, y: Tensor, *, permutations: int = 500, seed: int = 0) -> Discrepancy:
    """Squared MMD with an RBF kernel of the median width, and how often a random split of the items has one as large.

    Gretton, Borgwardt, Rasch, Schoelkopf, Smola 2012, JMLR 13, equation 3:
    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j).
    p = (1 + permutations at least as large) / (1 + permutations).
    """
    x, y = sample(x.double(), MOST, seed), sample(y.double(), MOST, seed + 1)
    n, both = len(x), torch.cat([x, y])  # [n + m, D]
    kernel = rbf(both, both, median_width(both))
    kernel.diagonal().zero_()
    rng = torch.Generator().manual_seed(seed)
    orders = [torch.arange(len(both)), *(torch.randperm(len(both), generator=rng) for _ in range(permutations))]
    inside = torch.zeros(len(both), len(orders), dtype=torch.float64)  # [n + m, P + 1] 1 for the items called x
    inside.scatter_(0, torch.stack(orders, 1)[:n], 1.0)
    values = _mmd2(kernel, inside.to(kernel.device), n)  # [P + 1]
    larger = int((values[1:] >= values[0] - 1e-12).sum())
    return Discrepancy(float(values[0]), (1 + larger) / (1 + permutations))


def _mmd2(kernel: Tensor, inside: Tensor, n: int) -> Tensor:
    """Unbiased estimate for each split of the items.  kernel [N, N] with a zero diagonal, inside [N, P] -> [P]"""
    m = len(kernel) - n
    towards = kernel @ inside  # [N, P] summed kernel with the items called x
    own = (inside * towards).sum(0)
    cross = ((1 - inside) * towards).sum(0)
    others = kernel.sum() - own - 2 * cross
    return own / max(1, n * (n - 1)) + others / max(1, m * (m - 1)) - 2 * cross / (n * m)


def coral_distance(x: Tensor, y: Tensor) -> float:
    """|C_x - C_y|^2 / (4 D^2), C the covariances. Sun, Saenko 2016 (Deep CORAL), arXiv:1607.01719.

    From inner products alone where items are fewer than dims: |C_x - C_y|^2 = |C_x|^2 - 2 <C_x, C_y> + |C_y|^2 with
    <X'X, Y'Y> = |X Y'|^2.
    """
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    n, m, dim = max(1, len(x) - 1), max(1, len(y) - 1), x.shape[1]
    if len(x) + len(y) > dim:
        return float((x.mT @ x / n - y.mT @ y / m).square().sum()) / (4 * dim * dim)
    square = (x @ x.mT / n).square().sum() + (y @ y.mT / m).square().sum() - 2 * (x @ y.mT).square().sum() / (n * m)
    return max(0.0, float(square)) / (4 * dim * dim)


def proxy_a_distance(x: Tensor, y: Tensor, *, seed: int = 0) -> float:
    """2 (1 - 2 e), e the error of a classifier that tells the domains apart: 0 when it cannot, 2 when it always can.

    Ben-David, Blitzer, Crammer, Pereira 2007 (NIPS 19). The classifier is a ridge regression and e its leave-one-out
    error, on as many items of one domain as of the other. An error above one half counts as one half.
    """
    count = min(len(x), len(y), MOST // 2)
    both = torch.cat([sample(x, count, seed), sample(y, count, seed + 1)])  # [2 count, D]
    domain = torch.arange(2, device=both.device).repeat_interleave(count)
    error = float((left_out_scores(both, domain).argmax(-1) != domain).double().mean())
    return 2 * (1 - 2 * min(0.5, error))
