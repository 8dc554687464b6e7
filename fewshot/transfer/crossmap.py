"""A map from one encoder's space to another's, learned from items that both have embedded: ridge or CCA."""

from __future__ import annotations

from collections.abc import Sequence
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
FOLDS = 5  # that the kind is chosen by


@dataclass(frozen=True, slots=True)
class CrossMap:
    """An affine map; `place` keeps unit norms."""

    weight: Tensor  # [D, D2]
    mean: Tensor  # [D] of the items it was learned from
    target_mean: Tensor  # [D2]
    kind: str  # "ridge" or "cca"
    fit: float  # share of the other space's variance that it explains for a fifth of the items left out; at most 1
    items: int

    def place(self, x: Tensor) -> Tensor:
        """Move embeddings into the other encoder's space.  [n, D] -> [n, D2]"""
        return unit((x - self.mean) @ self.weight + self.target_mean)


def learn_map(x: Tensor, y: Tensor, kinds: Sequence[str] = KINDS, dims: int = 64) -> CrossMap:
    """Learn to turn rows of x [n, D] into those of y [n, D2], the same items by another encoder.

    `ridge`: W = (x'x + l I)^-1 x'y on centred rows, l by leave-one-out. `cca`: the first `dims` canonical directions
    (Hotelling 1936; ridge-regularised by the same l) of both sides, x being taken to y through them:
    W = A R B^+ with A, B the directions and R the canonical correlations; it leaves out what the spaces do not share.
    Of several kinds the one that explains more of items left out, every fifth in turn, is learned from all.

    Raises
    ------
    DataError
        for fewer than 10 shared items, or rows that do not pair up.
    """
    if len(x) != len(y) or len(x) < LEAST:
        raise DataError(f"a map needs at least {LEAST} items in both spaces, got {len(x)} and {len(y)}")
    if strange := set(kinds) - set(KINDS):
        raise DataError(f"a map is {' or '.join(KINDS)}, got {min(strange)!r}")
    shares = {kind: _left_out_share(x.double(), y.double(), kind, dims) for kind in kinds}
    kind = max(shares, key=shares.__getitem__)
    weight, mean, target_mean = (t.to(x.dtype) for t in _solve(x.double(), y.double(), kind, dims))
    return CrossMap(weight, mean, target_mean, kind, shares[kind], len(x))


def _solve(x: Tensor, y: Tensor, kind: str, dims: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weight [D, D2], mean [D] and target mean [D2] of a map."""
    mean, target_mean = x.mean(0), y.mean(0)
    a, b = x - mean, y - target_mean
    u, s = spectrum(a)  # [n, R], [R]
    penalty = _choose(u, s, b)
    axes = a.mT @ u / s.sqrt()  # [D, R]
    if kind == "ridge":
        return axes @ ((s.sqrt() / (s + penalty)).unsqueeze(-1) * (u.mT @ b)), mean, target_mean
    return axes @ _through_canonical(u, s, b, penalty, dims), mean, target_mean


def _left_out_share(x: Tensor, y: Tensor, kind: str, dims: int) -> float:
    """1 - squared error of items left out over that of the mean of the others, every fifth item in turn."""
    wrong = least = 0.0
    for k in range(FOLDS):
        held = torch.arange(len(x)) % FOLDS == k
        weight, mean, target_mean = _solve(x[~held], y[~held], kind, dims)
        wrong += float((y[held] - (x[held] - mean) @ weight - target_mean).square().sum())
        least += float((y[held] - target_mean).square().sum())
    return 1 - wrong / max(least, 1e-30)


def _choose(u: Tensor, s: Tensor, y: Tensor) -> float:
    """Penalty of the least leave-one-out error."""
    best, least = PENALTIES[0], torch.inf
    for penalty in PENALTIES:
        keep = s / (s + penalty)
        leverage = u.square() @ keep + 1 / len(y)  # [n]
        wrong = (y - u @ (keep.unsqueeze(-1) * (u.mT @ y))) / (1 - leverage).clamp_min(1e-9).unsqueeze(-1)
        error = float(wrong.square().sum())
        if error < least:
            best, least = penalty, error
    return best


def _through_canonical(u: Tensor, s: Tensor, y: Tensor, penalty: float, dims: int) -> Tensor:
    """From principal axes of x to y through the first canonical directions.  -> [R, D2]"""
    v, e = spectrum(y)  # [n, R2], [R2]
    shrunk, other = (s / (s + penalty)).sqrt(), (e / (e + penalty)).sqrt()
    left, correlation, right = torch.linalg.svd(shrunk.unsqueeze(-1) * (u.mT @ v) * other, full_matrices=False)
    left, correlation, right = left[:, :dims], correlation[:dims], right[:dims]  # [R, M], [M], [M, R2]
    back = (right * (e + penalty).sqrt()) @ (y.mT @ v / e.sqrt()).mT  # [M, D2]: whitened axes of y, coloured again
    through: Tensor = left / (s + penalty).sqrt().unsqueeze(-1) * correlation @ back  # [R, D2]
    return through


def map_between(first: str | Path, second: str | Path) -> tuple[CrossMap, str, str]:
    """Learn the map, ridge or CCA, from the encoder of one index to that of another, by the pictures that both hold.

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
        return learn_map(x, y), a.fingerprint, b.fingerprint
