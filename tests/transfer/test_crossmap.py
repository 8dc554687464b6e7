"""Maps between encoders against scikit-learn's ridge, brute-force leave-one-out, and CCA's definition."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from fewshot.arrays import unit
from fewshot.errors import DataError
from fewshot.transfer.crossmap import PENALTIES, learn_map


def spaces(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of one hidden 5-dim thing, each with noise of its own."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 5, generator=rng)
    fixed = torch.Generator().manual_seed(99)
    to_x, to_y = torch.randn(5, 12, generator=fixed), torch.randn(5, 9, generator=fixed)
    x, y = (unit(hidden @ m + 0.3 * torch.randn(n, m.shape[1], generator=rng)) for m in (to_x, to_y))
    return x.double(), y.double()


def test_ridge_map_is_scikit_learn_s_at_the_penalty_of_least_left_out_error() -> None:
    x, y = spaces(30)
    errors = {}
    for penalty in PENALTIES:
        rest = [np.arange(30) != i for i in range(30)]
        guesses = [Ridge(alpha=penalty).fit(x[k].numpy(), y[k].numpy()).predict(x[~k].numpy())[0] for k in rest]
        errors[penalty] = ((np.stack(guesses) - y.numpy()) ** 2).sum()
    best = min(errors, key=errors.__getitem__)
    found = learn_map(x, y, ["ridge"])
    query, _ = spaces(10, seed=1)
    wanted = Ridge(alpha=best).fit(x.numpy(), y.numpy()).predict(query.numpy())
    np.testing.assert_allclose(found.place(query).numpy(), unit(torch.from_numpy(wanted)).numpy(), atol=1e-8)


def test_the_kind_that_explains_more_of_a_fifth_left_out_is_taken() -> None:
    x, y = spaces(40)
    wrong = least = 0.0
    for k in range(5):
        held = np.arange(40) % 5 == k
        peer = RidgeCV(alphas=PENALTIES).fit(x[~held].numpy(), y[~held].numpy())
        wrong += ((peer.predict(x[held].numpy()) - y[held].numpy()) ** 2).sum()
        least += ((y[held] - y[~held].mean(0)) ** 2).sum().item()
    one = learn_map(x, y, ["ridge"])
    assert one.fit == pytest.approx(1 - wrong / least)
    narrow, either = learn_map(x, y, ["cca"], dims=1), learn_map(x, y, dims=1)
    assert narrow.fit < one.fit  # one direction of five that there are
    assert (either.kind, either.fit) == ("ridge", one.fit)
    rng = torch.Generator().manual_seed(1)
    few = torch.randn(30, 2, generator=rng).double()  # two dims shared, and noise in which ridge believes too much
    a, b = (torch.cat([few * 3, torch.randn(30, 12, generator=rng).double()], 1) for _ in range(2))
    assert learn_map(a, b, dims=2).kind == "cca"


def test_cca_map_goes_through_the_canonical_directions() -> None:
    """By the definition: whiten both sides, cut the cross-covariance to its first directions, colour y again."""
    x, y = spaces(200)
    found = learn_map(x, y, ["cca"], dims=5)
    a, b = (x - x.mean(0)).numpy(), (y - y.mean(0)).numpy()

    def root(m: np.ndarray, power: float) -> np.ndarray:
        values, vectors = np.linalg.eigh(m)
        return vectors * values**power @ vectors.T

    wanted = []
    for penalty in PENALTIES:  # whichever leave-one-out chose
        cx, cy = a.T @ a + penalty * np.eye(12), b.T @ b + penalty * np.eye(9)
        left, correlation, right = np.linalg.svd(root(cx, -0.5) @ a.T @ b @ root(cy, -0.5))
        wanted.append(root(cx, -0.5) @ left[:, :5] * correlation[:5] @ right[:5] @ root(cy, 0.5))
    gaps = [np.abs(found.weight.numpy() - w).max() for w in wanted]
    assert min(gaps) < 1e-8


@pytest.mark.parametrize("kind", ["ridge", "cca"])
def test_a_map_carries_items_near_their_twins(kind: str) -> None:
    found = learn_map(*spaces(200), [kind], dims=5)
    x, y = spaces(50, seed=3)
    nearest = (found.place(x) @ y.mT).argmax(-1)
    assert float((nearest == torch.arange(50)).double().mean()) > 0.6


def test_too_few_shared_items_are_refused() -> None:
    x, y = spaces(9)
    with pytest.raises(DataError, match="at least 10 items"):
        learn_map(x, y)
    with pytest.raises(DataError, match="ridge or cca"):
        learn_map(*spaces(20), ["pca"])
