"""Eigenvalues of Gram matrices with zero rows, which single precision gets wrong without saying so."""

import torch

from fewshot_plugins._spectrum import symmetric_eigen


def gram(seed):
    """A Gram matrix of centred examples, half of them padding."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(100, 300, generator=rng) + 1, dim=-1)
    padding = torch.rand(100, generator=rng) < 0.5
    x[~padding] -= x[~padding].mean(0)
    x[padding] = 0
    return x @ x.T


def test_padding_never_gives_nan():
    # seeds 159 and 319 give NaN from torch.linalg.eigh in float32, with MKL
    matrices = torch.stack([gram(seed) for seed in (0, 159, 319)])
    values, vectors = symmetric_eigen(matrices)
    assert values.dtype == vectors.dtype == torch.float32
    torch.testing.assert_close(vectors * values.unsqueeze(-2) @ vectors.mT, matrices, rtol=1e-5, atol=1e-5)
