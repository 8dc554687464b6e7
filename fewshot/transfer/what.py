"""What to transfer: encoders and depths ranked for a labelled target, without training any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fewshot.registry import registry
from fewshot.strategy import fit
from fewshot.task import make_task
from fewshot.transfer.scores import h_score, leep, logme, loo_ridge, nce
from fewshot.transfer.trial import ALONE, Pair

RANKED = ("logme", "h_score", "loo_ridge")  # whose mean rank decides; the other two need a source


@dataclass(frozen=True, slots=True)
class Suitability:
    """Scores of one encoder on the target's labelled items; larger is better. LEEP and NCE ask the source's head."""

    encoder: str
    dim: int
    logme: float  # nats a label
    h_score: float  # in [0, C - 1]
    loo_ridge: float  # in [0, 1]
    leep: float | None  # nats, at most 0; None without a labelled source
    nce: float | None


def suitability(encoder: str, pair: Pair) -> Suitability:
    """Score an encoder on the labelled items of a pair embedded by it."""
    source_scores: tuple[float | None, float | None] = (None, None)
    kinds, numbers = torch.unique(pair.source_labels, return_inverse=True)
    if len(kinds) > 1:
        head = fit(registry().strategy(ALONE)(), make_task(pair.source, numbers, classes=len(kinds)))
        probability = head.logits(pair.target).softmax(-1)  # [n, Z]
        source_scores = leep(probability, pair.labels), nce(probability.argmax(-1), pair.labels)
    with torch.inference_mode():
        own = logme(pair.target, pair.labels), h_score(pair.target, pair.labels), loo_ridge(pair.target, pair.labels)
    return Suitability(encoder, pair.target.shape[1], *own, *source_scores)


def mean_ranks(rows: Sequence[Suitability]) -> list[float]:
    """Mean rank of each encoder by LogME, H-score and leave-one-out ridge; 1 is best."""
    values = np.array([[getattr(row, name) for name in RANKED] for row in rows])  # [K, 3]
    ranks: list[float] = (1 + (values[None] > values[:, None]).sum(1).mean(-1)).tolist()
    return ranks


def ranked(rows: Sequence[Suitability]) -> list[tuple[Suitability, float]]:
    """Encoders with their mean ranks, best first."""
    return sorted(zip(rows, mean_ranks(rows), strict=True), key=lambda pair: pair[1])
