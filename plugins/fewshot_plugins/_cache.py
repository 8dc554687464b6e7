"""The key-value cache of Tip-Adapter and its kin: queries look up labels by their nearness to the examples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.task import Task, one_hot
from fewshot_plugins._holdout import judge_some

ALPHAS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # tried by leave-one-out
BETAS = (1.0, 2.0, 5.5, 10.0, 20.0, 50.0, 100.0)
FACTORS = tuple(2.0 ** (i / 2) for i in range(-16, 5))  # 1/256 to 4: tried on all logits, for calibration
PAPER = (1.0, 5.5)  # alpha and beta where nothing can be left out: the constants of Tip-Adapter


@dataclass(frozen=True, slots=True)
class CacheHead:
    """`query @ weight.mT + alpha exp(-beta (1 - query @ keys.mT)) @ values`."""

    weight: Tensor  # [*B, C, D] text classifier
    keys: Tensor  # [*B, S, D] examples
    values: Tensor  # [*B, S, C] what each example says; zero for padding
    alpha: Tensor  # [*B]
    beta: Tensor  # [*B]

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [*B, Q, D] -> [*B, Q, C]"""
        return query @ self.weight.mT + look_up(query @ self.keys.mT, self.values, self.alpha, self.beta)


def look_up(cosine: Tensor, values: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Cache scores alpha exp(-beta (1 - cosine)) @ values.  [*B, Q, S], [*B, S, C], [*B] x 2 -> [*B, Q, C]"""
    near = torch.exp(-beta[..., None, None] * (1 - cosine))  # [*B, Q, S]
    return alpha[..., None, None] * (near @ values)


def constants(
    task: Task, text: Tensor, keys: Tensor, values: Tensor, alpha: float | None, beta: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Give alpha, beta and a factor that calibrates, the first two chosen by leave-one-out where None.  -> [*B] x 3

    Each example is looked up without itself, so it sees one example fewer of its own class; that class's score is
    scaled up by n / (n - 1) to make up for it. The pair with the fewest errors wins, ties going to the lower
    cross-entropy; the factor is that on all logits with the least cross-entropy. Without an example to leave out it is
    1, and the constants are the paper's. `text` [*B, S, C] are the scores of the examples by text, `keys` [*B, S, K]
    what the cache compares.
    """
    index, labels = judge_some(task)  # [*B, n], [*B, n]
    wide = index.unsqueeze(-1)
    query = keys.gather(-2, wide.expand(*index.shape, keys.shape[-1]))  # [*B, n, K]
    said = text.gather(-2, wide.expand(*index.shape, task.classes))  # [*B, n, C]
    own = torch.arange(keys.shape[-2], device=keys.device) == wide  # [*B, n, S]
    hot = one_hot(labels, task.classes, text.dtype)  # [*B, n, C]
    count = (hot * task.counts().unsqueeze(-2)).sum(-1, keepdim=True)  # [*B, n, 1]
    boost = 1 + hot / (count - 1).clamp_min(1)  # [*B, n, C]
    cosine = query @ keys.mT  # [*B, n, S]
    best = _Best(text.new_ones(task.batch_shape), said)
    for b in BETAS if beta is None else (beta,):
        near = torch.exp(-b * (1 - cosine)).masked_fill(own, 0.0) @ values * boost  # [*B, n, C]
        for a in ALPHAS if alpha is None else (alpha,):
            best.try_out(a, b, said + a * near, labels)
    costs = torch.stack([_surprise(f * best.logits, labels) for f in FACTORS], -1)  # [*B, F]
    factor = costs.new_tensor(FACTORS)[costs.argmin(-1)]  # [*B]
    known = (labels >= 0).any(-1)  # [*B]
    default = PAPER[0] if alpha is None else alpha, PAPER[1] if beta is None else beta
    chosen = zip((best.alpha, best.beta, factor), (*default, 1.0), strict=True)
    first, second, third = (torch.where(known, found, fixed) for found, fixed in chosen)
    return first, second, third


class _Best:
    """The pair of constants with the lowest cost so far, each task of a batch its own."""

    def __init__(self, ones: Tensor, logits: Tensor) -> None:
        self.alpha, self.beta, self.cost, self.logits = ones, ones, ones * torch.inf, logits

    def try_out(self, alpha: float, beta: float, logits: Tensor, labels: Tensor) -> None:
        wrong = ((logits.argmax(-1) != labels) & (labels >= 0)).sum(-1)  # [*B]
        loss = _surprise(logits, labels) / (labels >= 0).sum(-1).clamp_min(1)  # [*B]
        cost = wrong + loss / (1 + loss)  # ties in the number of errors go to the lower cross-entropy
        better = cost < self.cost
        self.alpha, self.beta = torch.where(better, alpha, self.alpha), torch.where(better, beta, self.beta)
        self.cost = torch.where(better, cost, self.cost)
        self.logits = torch.where(better[..., None, None], logits, self.logits)


def _surprise(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross-entropies of the rows that count.  -> [*B]"""
    own = logits.log_softmax(-1).gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)  # [*B, n]
    return -torch.where(labels >= 0, own, 0.0).sum(-1)
