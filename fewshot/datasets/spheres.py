"""spheres: synthetic embeddings on a sphere whose Bayes accuracy is known for every number of classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewshot.datasets import Dataset, Items
from fewshot.hookspecs import hookimpl

CLASSES, EACH, DIM, SEED = 20, 300, 64, 0
DISTANCE = 3.0  # of a class's centre from the origin, in standard deviations of the noise


def centres() -> NDArray[np.float64]:
    """Orthonormal centres of the classes.  -> [CLASSES, DIM]"""
    return np.linalg.qr(np.random.default_rng(SEED).standard_normal((DIM, CLASSES)))[0].T


def bayes_accuracy(way: int) -> float:
    """Accuracy of the best possible classifier of `way` equally likely classes.

    An item is DISTANCE c_k plus standard normal noise, scaled to length 1. Its direction u is likelier under k the
    larger c_k.u is, so the best guess is the nearest centre; scaling does not change which that is. It is right when
    DISTANCE + z_k exceeds the way - 1 other z_j: the integral of phi(t - DISTANCE) Phi(t)^(way - 1) over t.
    """
    t = np.linspace(-10, 10 + DISTANCE, 20_001)
    below = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in t])
    density = np.exp(-((t - DISTANCE) ** 2) / 2) / math.sqrt(2 * math.pi)
    return float((density * below ** (way - 1)).sum() * (t[1] - t[0]))


class Spheres(Dataset):
    """Noisy points around orthonormal centres, scaled to length 1."""

    name = "spheres"
    about = "synthetic embeddings on a sphere with a known Bayes error; needs no encoder"

    def load(self, path: Path | None = None) -> Items:
        """Draw 300 items for each of 20 classes, always the same."""
        rng = np.random.default_rng(SEED + 1)
        x = DISTANCE * centres().repeat(EACH, 0) + rng.standard_normal((CLASSES * EACH, DIM))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        labels = tuple(f"class{c:02}" for c in range(CLASSES) for _ in range(EACH))
        return Items((), labels, features=x.astype(np.float32), encoder=("synthetic", "spheres-1"))


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Register `spheres`."""
    register(Spheres)
