"""Ridge regression onto the classes with a weight for each example."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_ridge(x: Tensor, y: Tensor, weight: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Minimise sum_i w_i |y_i - W x_i - b|^2 + penalty |W|^2; b is not penalised.  -> W [C, D], b [C]

    Solved with as many unknowns as there are examples or dims, whichever are fewer: with X the rows times the roots of
    their weights, W' = X'(XX' + l I)^-1 Y = (X'X + l I)^-1 X'Y.

    Parameters
    ----------
    x, y
        examples [n, D] and targets [n, C].
    weight
        [n], at least 0.
    """
    share = weight / weight.sum()
    mean, middle = share @ x, share @ y  # [D], [C]
    root = weight.sqrt().unsqueeze(-1)  # [n, 1]
    a, b = root * (x - mean), root * (y - middle)  # [n, D], [n, C]
    eye = torch.eye(min(a.shape), dtype=a.dtype, device=a.device)
    if a.shape[0] <= a.shape[1]:
        w = (a.mT @ torch.cholesky_solve(b, torch.linalg.cholesky(a @ a.mT + penalty * eye))).mT  # [C, D]
    else:
        w = torch.cholesky_solve(a.mT @ b, torch.linalg.cholesky(a.mT @ a + penalty * eye)).mT
    return w, middle - w @ mean
