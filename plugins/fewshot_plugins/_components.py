"""Directions that keep the spread of two domains and lose what tells them apart: shared by tca and jda."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 8192  # rows turned to double precision at a time


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and Gram matrix of rows, added up in double precision a part at a time.  [n, D] -> [D], [D, D]"""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK].double()
        total += part.sum(0)
        gram += part.mT @ part
    return total, gram


def transfer_components(source: Tensor, target: Tensor, mu: float, dims: int) -> Tensor:
    """Coordinates of TCA with a linear kernel from D x D matrices alone, whatever the number of items.  -> [D, M]

    TCA seeks W [n, M] with the largest tr(W'KHKW) subject to W'(KLK + mu I)W = I, and places item i at row i of KW.
    With X [n, D] the items of both domains, K = XX', so KW = XA, A = X'W. W lies in the span of X, and with G = X'X,
    d the difference of the domains' means (X'LX = dd') and S = X'HX the scatter, the constraint becomes
    A'(dd' + mu G^-1)A = I and the aim A'SA. The inverse of the constraint's matrix is, after Sherman and Morrison,

        N = (G - G d d'G / (mu + d'Gd)) / mu = FF',

    so A = F U with U the first eigenvectors of F'SF. These are the very coordinates of the n x n problem.
    """
    (s1, g1), (s2, g2) = moments(source), moments(target)
    n, gram = len(source) + len(target), g1 + g2
    scatter = gram - torch.outer(s1 + s2, s1 + s2) / n  # [D, D]
    pulled = gram @ (s1 / len(source) - s2 / len(target))  # [D] G d
    apart = s1 / len(source) - s2 / len(target)
    inverse = (gram - torch.outer(pulled, pulled) / (mu + apart @ pulled)) / mu
    values, vectors = torch.linalg.eigh(inverse)
    factor = vectors * values.clamp_min(0).sqrt()  # [D, D] F
    directions = torch.linalg.eigh(factor.mT @ scatter @ factor).eigenvectors[:, -dims:].flip(-1)  # [D, dims]
    components: Tensor = factor @ directions
    return components


def joint_components(x: Tensor, domain: Tensor, labels: Tensor, classes: int, mu: float, dims: int) -> Tensor:
    """Coordinates of JDA in its primal, linear form.  -> [D, M]

    Minimises tr(A'X'MXA) + mu |A|^2 against the scatter A'SA: the first eigenvectors of (X'MX + mu I)^-1 S, scaled to
    A'(X'MX + mu I)A = I. M = M_0 + sum_c M_c, divided by its Frobenius norm as in the authors' code, with
    M_c = e_c e_c', e_c holding 1 / n_c for the source's items of class c and -1 / m_c for the target's; M_0 has all.

    Parameters
    ----------
    x
        items of both domains.  [n, D]
    domain
        0 for the source, 1 for the target.  [n]
    labels
        classes of the source's items and classes, maybe guessed, of the target's; -1 for none.  [n]
    """
    hot = labels.unsqueeze(-1) == torch.arange(classes, device=x.device)  # [n, C]
    groups = torch.cat([torch.ones_like(hot[:, :1]), hot], -1).double()  # [n, C + 1]
    near, far = groups * (domain == 0).unsqueeze(-1), groups * (domain == 1).unsqueeze(-1)
    both = (near.sum(0) > 0) & (far.sum(0) > 0)  # [C + 1] only what both domains have can be matched
    e = (near / near.sum(0).clamp_min(1) - far / far.sum(0).clamp_min(1)) * both  # [n, C + 1]
    norm = (e.mT @ e).square().sum().sqrt().clamp_min(1e-12)  # of M
    centred = x - x.mean(0)
    apart = x.mT @ e / norm.sqrt()  # [D, C + 1]; X'MX is its square
    metric = apart @ apart.mT + mu * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    factor = torch.linalg.cholesky(metric)  # L; A = L'^-1 U
    half = torch.linalg.solve_triangular(factor, centred.mT, upper=False)  # [D, n] L^-1 X'H
    top = torch.linalg.eigh(half @ half.mT).eigenvectors[:, -dims:].flip(-1)
    turn: Tensor = torch.linalg.solve_triangular(factor.mT, top, upper=True)
    return turn
