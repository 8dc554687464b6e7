"""Weights that blend the logits of several classifiers into one: convex, non-negative, drawn to a prior."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS, HALVINGS = 20, 8
ROUNDING = 1e-6  # relative change of the cost that counts as none


def blend_weights(logits: Tensor, labels: Tensor, prior: Tensor, pull: float | Tensor) -> Tensor:
    """Minimise sum_i CE(softmax(sum_m w_m logits_im), label_i) + pull/2 |w - prior|^2 over w >= 0.

    Newton's method with step halving, on the weights that are not held at zero.

    Parameters
    ----------
    logits
        [*B, N, C, M], minus infinity for classes that do not take part in a row.
    labels
        [*B, N], -1 for rows that do not count.
    prior
        [*B, M] weights to be drawn to; what is found when no row counts.
    pull
        strength of the prior, in examples; one for all tasks, or [*B].

    Returns
    -------
    Tensor
        [*B, M]
    """
    counts = (labels >= 0).to(logits.dtype)  # [*B, N]
    strength = torch.as_tensor(pull, dtype=prior.dtype, device=prior.device).expand(prior.shape[:-1]).unsqueeze(-1)
    own = labels.clamp_min(0).unsqueeze(-1)  # [*B, N, 1]
    absent = torch.isinf(logits[..., 0])  # [*B, N, C]
    absent = absent & ~absent.all(-1, keepdim=True)
    z = logits.masked_fill(torch.isinf(logits), 0.0)  # [*B, N, C, M]
    right = z.gather(-2, own.unsqueeze(-1).expand(*own.shape, z.shape[-1])).squeeze(-2)  # [*B, N, M]

    def scores(w: Tensor) -> Tensor:  # [*B, M] -> log probabilities [*B, N, C]
        blended = (z @ w[..., None, :, None]).squeeze(-1)
        return blended.masked_fill(absent, -torch.inf).log_softmax(-1)

    def cost(w: Tensor, log_p: Tensor) -> Tensor:  # -> [*B]
        surprise = -log_p.gather(-1, own).squeeze(-1)  # [*B, N]
        return torch.where(counts > 0, surprise, 0.0).sum(-1) + strength[..., 0] / 2 * (w - prior).square().sum(-1)

    w = prior.clamp_min(0)
    log_p = scores(w)
    best = cost(w, log_p)  # [*B]
    for _ in range(STEPS):
        step = _newton_step(z, right, log_p.exp() * counts.unsqueeze(-1), counts, w, prior, strength)  # [*B, M]
        size = torch.ones_like(best)  # [*B]
        for _ in range(HALVINGS):
            moved = (w - size.unsqueeze(-1) * step).clamp_min(0)
            moved_log_p = scores(moved)
            value = cost(moved, moved_log_p)
            better = value <= best + ROUNDING * best.abs()
            if bool(better.all()):
                break
            size = torch.where(better, size, size / 2)
        w = torch.where(better.unsqueeze(-1), moved, w)
        log_p = torch.where(better[..., None, None], moved_log_p, log_p)
        settled = ~better | (best - value <= ROUNDING * best.abs())  # [*B]
        best = torch.where(better, value, best)
        if bool(settled.all()):
            break
    return w


def _newton_step(z: Tensor, right: Tensor, p: Tensor, counts: Tensor, w: Tensor, prior: Tensor, pull: Tensor) -> Tensor:
    """Newton's direction with the weights that would go below zero held there.  -> [*B, M]"""
    mean = (p.unsqueeze(-1) * z).sum(-2)  # [*B, N, M] expected logits, zero in rows that do not count
    gradient = (mean - right * counts.unsqueeze(-1)).sum(-2) + pull * (w - prior)  # [*B, M]
    flat, weighted = z.flatten(-3, -2), (p.unsqueeze(-1) * z).flatten(-3, -2)  # [*B, N C, M]
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    curvature = weighted.mT @ flat - mean.mT @ mean + (pull.unsqueeze(-1) + 1e-6) * eye  # [*B, M, M]
    held = (w <= 0) & (gradient > 0)  # [*B, M]
    free = (~held).to(w.dtype)
    curvature = curvature * free.unsqueeze(-1) * free.unsqueeze(-2) + torch.diag_embed(held.to(w.dtype))
    step: Tensor = torch.linalg.solve(curvature, gradient * free)
    return step
