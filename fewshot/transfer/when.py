"""When to transfer: the gap of the domains, and the quadrant of target size and similarity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewshot.transfer.gap import coral_distance, median_width, mmd, proxy_a_distance, rbf, sample

LARGE = 100  # labelled items a class from which fine-tuning is worth a try
TEXTS = "frozen features with a linear head (texts have no earlier layers or fine-tuning here)"
CLASSES = 30  # classes of the target that are compared with each other, at most


@dataclass(frozen=True, slots=True)
class Gap:
    """Distances of source and target; see `fewshot.transfer.gap`."""

    mmd2: float  # unbiased, so it may be below 0
    p: float  # of the permutation test
    coral: float
    a_distance: float  # in [0, 2]
    class_mmd2: float | None  # mmd2 between two classes of the target, on average; None where none has two items
    covariance: float = 0.0  # Frobenius norm |C_x - C_y|, coral before it is divided by 4 D^2


@dataclass(frozen=True, slots=True)
class Quadrant:
    """The classic advice by size of the target and similarity to the source."""

    large: bool
    similar: bool
    advice: str
    reason: str


def measure_gap(source: Tensor, target: Tensor, labels: Tensor, unlabeled: Tensor) -> Gap:
    """Measure all distances.  [N, D], [n, D], labels [n], further items of the target without a label [U, D]"""
    items = torch.cat([target, unlabeled]) if len(unlabeled) else target
    found = mmd(source, items)
    between = class_gap(target, labels, median_width(_sampled(source, items)))
    coral = coral_distance(source, items)
    covariance = 2 * items.shape[1] * coral**0.5
    return Gap(found.mmd2, found.p, coral, proxy_a_distance(source, items), between, covariance)


def _sampled(source: Tensor, target: Tensor) -> Tensor:
    return torch.cat([sample(source.double(), 1000, 0), sample(target.double(), 1000, 1)])


def class_gap(x: Tensor, labels: Tensor, width: float) -> float | None:
    """Mean unbiased squared MMD between two classes, over all pairs of up to 30 classes; None with fewer than two.

    mean_{i != j} k within either class, less twice the mean between them. Classes of one item are left out.
    """
    counts = torch.bincount(labels)
    kept = [c for c in range(len(counts)) if int(counts[c]) > 1]
    kept = [kept[i] for i in np.linspace(0, len(kept) - 1, min(len(kept), CLASSES)).round().astype(int)]
    if len(kept) < 2:
        return None
    groups = [x[labels == c].double() for c in kept]
    means = torch.tensor([[float(rbf(a, b, width).mean()) for b in groups] for a in groups])  # [K, K]
    n = torch.tensor([float(len(g)) for g in groups])
    own = (means.diagonal() * n - 1) / (n - 1)  # without the pairs of an item with itself, whose kernel is 1
    apart = own[:, None] + own[None] - 2 * means  # [K, K]
    return float(apart[~torch.eye(len(kept), dtype=torch.bool)].mean())


def quadrant(gap: Gap, labelled: int, classes: int, *, texts: bool = False) -> Quadrant:
    """Apply the quadrant to the measured size and gap.

    Large: at least 100 labelled items a class. Similar: the gap between the domains (MMD^2) is below that between two
    of the target's own classes, so that the domain confuses less than the classes differ. Both are rules of thumb.
    For texts the advice is always frozen features, since encoders of texts have neither earlier layers nor fine-tuning.
    """
    each = labelled / max(1, classes)
    large = each >= LARGE
    wide = gap.class_mmd2 if gap.class_mmd2 is not None else 0.0
    similar = gap.mmd2 < wide
    size = f"{each:.0f} labelled items a class is {'large' if large else 'small'} (from {LARGE} on it is large)"
    apart = (
        f"the gap to the source, MMD^2 {gap.mmd2:.3f}, is {'below' if similar else 'not below'} the {wide:.3f} between "
        f"two of the target's classes, so the domains are {'similar' if similar else 'different'}"
    )
    advice = {
        (False, True): "frozen features with a linear head",
        (False, False): "features of earlier layers (lite:stage6, lite:stage5) with a linear head",
        (True, True): "fine-tune the last layers",
        (True, False): "fine-tune all layers",
    }[large, similar]
    advice = TEXTS if texts else advice
    return Quadrant(large, similar, advice, f"{size}; {apart}")
