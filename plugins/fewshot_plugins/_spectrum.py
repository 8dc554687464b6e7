"""Eigenvalues of symmetric matrices, in double precision."""

from __future__ import annotations

import torch
from torch import Tensor


def symmetric_eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, rising, and eigenvectors in columns, of the matrix's own dtype.  [*B, R, R] -> [*B, R], [*B, R, R]

    In single precision, LAPACK's solver returns NaN for about one in two hundred Gram matrices with many zero rows (as
    padding makes them), without an error; in double precision it does not.
    """
    values, vectors = torch.linalg.eigh(matrix.double())
    return values.to(matrix.dtype), vectors.to(matrix.dtype)
