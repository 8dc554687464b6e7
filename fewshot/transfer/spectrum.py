"""A matrix through its singular values, by the smaller of its two Gram matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors and squared singular values, in double precision.  [n, D] -> [n, R], [R], R <= min(n, D)

    Directions whose value is lost in rounding are left out, so what comes back has full rank.
    """
    x = x.double()
    wide = x.shape[0] <= x.shape[1]
    energy, vectors = torch.linalg.eigh(x @ x.mT if wide else x.mT @ x)  # rising
    kept = energy > max(x.shape) * torch.finfo(x.dtype).eps * energy[-1:].clamp_min(1e-30)
    energy, vectors = energy[kept], vectors[:, kept]
    return (vectors if wide else x @ vectors / energy.sqrt()), energy
