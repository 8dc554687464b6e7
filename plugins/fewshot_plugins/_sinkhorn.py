"""Balanced entropic transport (Cuturi 2013, arXiv:1306.0895), by Newton's method on its dual."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-5  # greatest error of a class sum, as a share of U / C
STEPS = 50  # a limit that well-posed problems do not come near: Newton's method needs three to six


def balance(scores: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Find potentials v that give every class the same share of the items.

    The plan is P_ki = softmax_k(scores_ki + v_k): each item has mass 1 by construction, and v must make each class sum
    to U / C. It minimises the convex dual sum_i log sum_k exp(scores_ki + v_k) - U/C sum_k v_k, whose gradient is
    sum_i P_ki - U/C and whose Hessian is diag(sum_i P_ki) - P P^T. The Hessian is singular along v + constant, which
    changes no plan, so a constant matrix is added to it. Far from the solution a task takes Sinkhorn's step instead,
    v_k -= log(sum_i P_ki / (U/C)), which always descends. Each task decides, and stops, for itself.

    Parameters
    ----------
    scores
        minus the costs, times the regularisation.  [*B, C, U]
    start
        potentials to start from.  [*B, C]

    Returns
    -------
    the plan [*B, C, U] and its potentials [*B, C].
    """
    classes, items = scores.shape[-2:]
    share = items / classes
    tiny = torch.finfo(scores.dtype).tiny
    v = start
    for step in range(STEPS):
        plan = (scores + v.unsqueeze(-1)).softmax(-2)  # [*B, C, U]
        total = plan.sum(-1)  # [*B, C]
        error = total - share  # [*B, C]
        worst = error.abs().amax(-1, keepdim=True) / share  # [*B, 1]
        if step == STEPS - 1 or float(worst.max()) <= TOLERANCE:
            break
        hessian = torch.diag_embed(total * (1 + 1e-6)) - plan @ plan.mT + share / classes  # [*B, C, C]
        newton = torch.linalg.solve_ex(hessian, error.unsqueeze(-1))[0].squeeze(-1)  # [*B, C]
        near = (worst < 0.5) & (newton.abs().amax(-1, keepdim=True) < 1)  # [*B, 1]; False where newton is NaN
        move = torch.where(near, newton, (total.clamp_min(tiny) / share).log())  # [*B, C]
        v = torch.where(worst > TOLERANCE, v - move, v)
    return plan, v
