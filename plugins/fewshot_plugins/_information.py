"""Gradient descent on cross-entropy minus mutual information, shared by TIM and alpha-TIM."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot import Task

BETAS, TINY = (0.9, 0.999), 1e-8  # of Adam (Kingma and Ba 2015, arXiv:1412.6980)


def entropy_slope(p: Tensor, alpha: float) -> Tensor:
    """Derivative of an entropy in p, up to a constant that the softmax behind p cancels.

    Shannon's, -sum p log p, when alpha = 1; else Tsallis', (1 - sum p^alpha) / (alpha - 1).
    """
    if alpha == 1:
        return -p.clamp_min(torch.finfo(p.dtype).tiny).log()
    return p.clamp_min(torch.finfo(p.dtype).tiny).pow(alpha - 1) * (-alpha / (alpha - 1))


def logit_gradient(p: Tensor, hot: Tensor, weights: tuple[float, float, float], alpha: float) -> Tensor:
    """Gradient in the logits of: w0 CE(S) - w1 H(mean_Q p) + w2 mean_Q H(p).

    With g_ik the derivative of the entropies in p_ik, the softmax gives p_ik (g_ik - sum_j p_ij g_ij) (its Jacobian is
    diag(p) - p p^T); the cross-entropy gives the well-known p - y.

    Parameters
    ----------
    p
        probabilities, first of the support S, then of the unlabelled items Q.  [*B, C, S + U]
    hot
        one-hot labels of the support, zero columns for padding.  [*B, C, S]
    """
    support, items = hot.shape[-1], p.shape[-1] - hot.shape[-1]
    valid = hot.sum(-2, keepdim=True)  # [*B, 1, S]
    known, free = p[..., :support], p[..., support:]  # [*B, C, S], [*B, C, U]
    slope = entropy_slope(free, alpha).mul_(weights[2])  # [*B, C, U]
    slope -= weights[1] * entropy_slope(free.mean(-1, keepdim=True), alpha)
    inner = (free * slope).sum(-2, keepdim=True)  # [*B, 1, U]
    out = torch.empty_like(p)
    out[..., support:] = slope.sub_(inner).mul_(free).div_(items)
    out[..., :support] = (known * valid - hot) * (weights[0] / valid.sum(-1, keepdim=True))
    return out


def descend(
    task: Task,
    start: Tensor,
    weights: tuple[float, float, float],
    alpha: float,
    temperature: float,
    rate: float,
    steps: int,
) -> Tensor:
    """Adam on the prototypes w_k of logits -t/2 |z_i - w_k|^2, with the gradient written out.  -> [*B, C, D]

    The derivative of a loss with logit gradient G is dL/dw_k = t (sum_i G_ik z_i - w_k sum_i G_ik).
    """
    rows = torch.cat([task.support, task.unlabeled], -2)  # [*B, n, D]
    columns = rows.mT.contiguous()  # [*B, D, n]
    hot = task.one_hot().mT  # [*B, C, S]
    w, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)  # [*B, C, D] each
    denominator = torch.empty_like(start)
    for step in range(1, steps + 1):
        half = w.square().sum(-1, keepdim=True).mul_(0.5)  # [*B, C, 1]
        p = (w @ columns).sub_(half).mul_(temperature).softmax(-2)  # [*B, C, n]
        slope = logit_gradient(p, hot, weights, alpha)  # [*B, C, n]
        grad = (slope @ rows).sub_(w * slope.sum(-1, keepdim=True)).mul_(temperature)  # [*B, C, D]
        first.lerp_(grad, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
        torch.sqrt(second, out=denominator).div_((1 - BETAS[1] ** step) ** 0.5).add_(TINY)
        w.addcdiv_(first, denominator, value=-rate / (1 - BETAS[0] ** step))
    return w
