"""A map from one encoder's space to another's, learned from items that both have embedded: ridge or CCA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fewshot.arrays import to_tensor, unit
from fewshot.errors import DataError
from fewshot.store import Store
from fewshot.transfer.spectrum import spectrum

PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0)  # tried by leave-one-out; embeddings have length 1
LEAST = 10  # shared items to learn a map from
KINDS = ("ridge", "cca")


@dataclass(frozen=True, slots=True)
class CrossMap:
    """An affine map; `place` keeps unit norms."""

    weight: Tensor  # [D, D2]
    mean: Tensor  # [D] of the items it was learned from
    target_mean: Tensor  # [D2]
    fit: float  # share of the other space's variance that it explains for items left out; at most 1
    items: int

    def place(self, x: Tensor) -> Tensor:
        """Move embeddings into the other encoder's space.  [n, D] -> [n, D2]"""
        return unit((x - self.mean) @ self.weight + self.target_mean)


def learn_map(x: Tensor, y: Tensor, kind: str = "ridge", dims: int = 64) -> CrossMap:
    """Learn to turn rows of x [n, D] into those of y [n, D2], the same items by another encoder.

    `ridge`: W = (x'x + l I)^-1 x'y on centred rows, l by leave-one-out. `cca`: the first `dims` canonical directions
    (Hotelling 1936; ridge-regularised by the same l) of both sides, x being taken to y through them:
    W = A R B^+ with A, B the directions and R the canonical correlations; it leaves out what the spaces do not share.

    Raises
    ------
    DataError
        for fewer than 10 shared items, or rows that do not pair up.
    """
    if len(x) != len(y) or len(x) < LEAST:
        raise DataError(f"a map needs at least {LEAST} items in both spaces, got {len(x)} and {len(y)}")
    if kind not in KINDS:
        raise DataError(f"a map is {' or '.join(KINDS)}, got {kind!r}")
    mean, target_mean = x.double().mean(0), y.double().mean(0)
    a, b = x.double() - mean, y.double() - target_mean
    u, s = spectrum(a)  # [n, R], [R]
    penalty, explained = _choose(u, s, b)
    axes = a.mT @ u / s.sqrt()  # [D, R]
    if kind == "ridge":
        weight = axes @ ((s.sqrt() / (s + penalty)).unsqueeze(-1) * (u.mT @ b))  # [D, D2]
    else:
        weight = axes @ _through_canonical(u, s, b, penalty, dims)
    weight, mean, target_mean = (t.to(x.dtype) for t in (weight, mean, target_mean))
    return CrossMap(weight, mean, target_mean, explained, len(x))


def _choose(u: Tensor, s: Tensor, y: Tensor) -> tuple[float, float]:
    """Penalty of the least leave-one-out error, and the share of variance explained there."""
    best, least = PENALTIES[0], torch.inf
    for penalty in PENALTIES:
        keep = s / (s + penalty)
        leverage = u.square() @ keep + 1 / len(y)  # [n]
        wrong = (y - u @ (keep.unsqueeze(-1) * (u.mT @ y))) / (1 - leverage).clamp_min(1e-9).unsqueeze(-1)
        error = float(wrong.square().sum())
        if error < least:
            best, least = penalty, error
    return best, 1 - least / max(float(y.square().sum()), 1e-30)


def _through_canonical(u: Tensor, s: Tensor, y: Tensor, penalty: float, dims: int) -> Tensor:
    """From principal axes of x to y through the first canonical directions.  -> [R, D2]"""
    v, e = spectrum(y)  # [n, R2], [R2]
    shrunk, other = (s / (s + penalty)).sqrt(), (e / (e + penalty)).sqrt()
    left, correlation, right = torch.linalg.svd(shrunk.unsqueeze(-1) * (u.mT @ v) * other, full_matrices=False)
    left, correlation, right = left[:, :dims], correlation[:dims], right[:dims]  # [R, M], [M], [M, R2]
    back = (right * (e + penalty).sqrt()) @ (y.mT @ v / e.sqrt()).mT  # [M, D2]: whitened axes of y, coloured again
    through: Tensor = left / (s + penalty).sqrt().unsqueeze(-1) * correlation @ back  # [R, D2]
    return through


def map_between(first: str | Path, second: str | Path, kind: str = "ridge") -> tuple[CrossMap, str, str]:
    """Learn the map from the encoder of one index to that of another, by the pictures that both hold.

    Returns it with the fingerprints of both encoders. Pictures pair up by content, not by name.

    Raises
    ------
    DataError
        when they share fewer than 10 pictures.
    FormatError
        when either is no index.
    """
    with Store.open(first) as a, Store.open(second) as b:
        ours, theirs = (dict(s.database.execute("SELECT digest, row FROM contents")) for s in (a, b))
        shared = sorted(set(ours) & set(theirs))
        if len(shared) < LEAST:
            raise DataError(
                f"{first} and {second} share {len(shared)} pictures; a map between encoders needs {LEAST} or more: "
                "index the same folder with both"
            )
        x = to_tensor(a.embeddings()[[ours[d] for d in shared]])  # [n, D]
        y = to_tensor(b.embeddings()[[theirs[d] for d in shared]])  # [n, D2]
        return learn_map(x, y, kind), a.fingerprint, b.fingerprint
