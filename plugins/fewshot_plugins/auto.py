"""auto: phrases and examples blended by what held-out examples say; stacked generalisation, Wolpert 1992."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot.errors import MissingInput
from fewshot_plugins._blend import blend_weights
from fewshot_plugins._holdout import HeldOut, class_folds, hold_out, shot_folds
from fewshot_plugins.gda import discriminants
from fewshot_plugins.prototypical import Prototypical, class_means
from fewshot_plugins.ridge import Ridge
from fewshot_plugins.zero_shot import phrase_means

VISUAL: tuple[tuple[Callable[[Task], LinearHead], float], ...] = (  # members and their shares of the prior weight
    (Prototypical().fit, 0.0),
    (Ridge(scale=1.0).fit, 0.6),
    (lambda task: LinearHead(*discriminants(task, shrink=0.5)), 0.4),
)
WEAK = 2.0  # pull on a single weight, in examples: it only has to keep tiny tasks in bounds
FEW = 3.0  # below so many shots a fold leaves heads too unlike the whole to take their scale from


def centred_text(task: Task) -> LinearHead:
    """Cosine to the phrases, less half of what a typical image of the task scores.  -> weight [*B, C, D], bias [*B, C]

    Some phrases lie near every image (hubs). With m the mean over classes of the examples, logit_k = (z - m/2).t_k:
    half, because m also holds what the classes have in common with their phrases.
    """
    text = unit(phrase_means(task))  # [*B, C, D]
    seen = task.seen().to(task.dtype).unsqueeze(-2)  # [*B, 1, C]
    mean = seen @ class_means(task) / seen.sum(-1, keepdim=True).clamp_min(1)  # [*B, 1, D]
    return LinearHead(text, -(text @ mean.mT).squeeze(-1) / 2)


@dataclass(frozen=True)
class Auto(Strategy):
    """Blend phrases, class means, ridge regression and GDA, weighed by leave-one-out on the examples alone.

    logits = sum_m w_m logits_m / s_m over the members m, a linear head. Each fold leaves one example of every class
    out and refits the members on the rest; s_m is the spread of a member's held-out logits (at one or two shots: of
    its logits on classes left out), and w >= 0 minimises sum_i CE(held-out logits of i) + pull/2 |w - w0|^2;
    then all w are multiplied by the one factor that minimises the same, so that probabilities are calibrated.
    At one shot nothing can be left out and judged, so w = w0 (`share_out`): the visual weight is assumed, the text's
    follows from the weight that it would get alone, which the examples do tell. So phrases that say nothing about
    these images get nothing. A class without examples is judged by its phrases; its visual score is the mean of
    those of the others. Defaults were set on the training splits of four data sets, so that no one of them decides.
    """

    name = "auto"
    uses = frozenset({"text"})
    unseen = True
    paper = "stacked generalisation: Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1; weights from held-out examples"
    pull: float = option(30.0, "strength of the prior weights, in held-out examples", min=0.0)
    visual: float = option(1.4, "assumed weight of the visual members alone, at one shot", min=0.0)
    overlap: float = option(0.3, "assumed correlation between the errors of text and examples", min=0.0, max=0.9)
    folds: int = option(5, "how many times examples are left out, at most; fewer when there are fewer shots", min=2)

    def fit(self, task: Task) -> LinearHead:
        """Fit the members, weigh them, and add them up.  -> weight [*B, C, D], bias [*B, C]

        Raises
        ------
        MissingInput
            when a class has neither an example nor a phrase.
        """
        if not task.text.shape[-2] and not bool(task.seen().all()):
            bare = int((~task.seen()).nonzero()[0, -1])
            raise MissingInput(f"class number {bare} has neither an example nor a phrase; give it one, or leave it out")
        heads = members(task)
        held = hold_out(members, task, shot_folds(task, self.folds))
        spread = held.spread()  # [*B, M]
        weights = self.weigh(task, heads, held, spread)  # [*B, M]
        return blend(heads, weights / whole_spread(task, spread).clamp_min(1e-9), task.seen())

    def weigh(self, task: Task, heads: list[LinearHead], held: HeldOut, spread: Tensor) -> Tensor:
        """Weights of the members' logits, these divided by `spread`.  -> [*B, M]"""
        prior = torch.tensor([weight for _, weight in VISUAL], dtype=task.dtype, device=task.device)
        prior = prior.expand(*task.batch_shape, -1)  # [*B, M]
        scale = spread.clamp_min(1e-9)[..., None, None, :]  # [*B, 1, 1, M]
        if len(heads) > len(VISUAL):
            text = heads[0].logits(held.query).unsqueeze(-1) / scale[..., :1]  # [*B, N, C, 1]
            text = text.masked_fill(~task.seen()[..., None, :, None], -torch.inf)
            alone = blend_weights(text, held.labels, torch.ones_like(prior[..., :1]), WEAK)  # [*B, 1]
            prior = torch.cat(self.share_out(alone, shots(task).unsqueeze(-1), prior), -1)
        logits = (held.logits / scale).masked_fill(~held.columns.unsqueeze(-1), -torch.inf)
        judged = torch.where(held.judged(), held.labels, -1)  # [*B, N]
        weights = blend_weights(logits, judged, prior, self.pull)  # [*B, M]
        # the prior is about the members' shares; how confident to be together is for the examples to say
        blended = (held.logits / scale * weights[..., None, None, :]).sum(-1, keepdim=True)  # [*B, N, C, 1]
        blended = blended.masked_fill(~held.columns.unsqueeze(-1), -torch.inf)
        return weights * blend_weights(blended, judged, torch.ones_like(weights[..., :1]), WEAK)

    def share_out(self, alone: Tensor, count: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Prior weights of text and visual members, from the text's weight alone.  [*B, 1] x 2 -> [*B, 1], [*B, M]

        Of two scores with unit spread that set the right class apart by a and d, and whose errors correlate by r, the
        best linear blend has the weights (a - r d) / (1 - r^2) and (d - r a) / (1 - r^2): linear discriminant
        analysis. a is what the text would get alone; d is assumed to be `visual` at one shot and to grow with the
        fourth root of the shots. The text's part is divided by the shots, since in the folds, where each class
        lacks an example, it looks better than it is on the whole.
        """
        strength, r = self.visual * count**0.25, self.overlap
        text = (alone - r * strength).clamp_min(0) / (1 - r * r) / count  # [*B, 1]
        return text, visual * (strength - r * alone).clamp_min(0.1 * strength) / (1 - r * r)


def members(task: Task) -> list[LinearHead]:
    """Fit the members: the text first, where there is text."""
    text = [centred_text(task)] if task.text.shape[-2] else []
    return text + [member(task) for member, _ in VISUAL]


def shots(task: Task) -> Tensor:
    """Mean number of examples of the classes that have any.  -> [*B]"""
    return task.counts().sum(-1) / task.seen().sum(-1).clamp_min(1)


def whole_spread(task: Task, spread: Tensor) -> Tensor:
    """Spread of each member's logits on new images when fitted on the whole support.  -> [*B, M]

    From three shots on it is much what the folds saw. Below, it is measured on classes left out. When there are too
    few classes for that, the folds' has to do.
    """
    few = shots(task) < FEW  # [*B]
    if not bool(few.any()):
        return spread
    other = hold_out(members, task, class_folds(task)).spread()  # [*B, M]
    return torch.where(few.unsqueeze(-1) & (other > 0), other, spread)


def blend(heads: list[LinearHead], factors: Tensor, seen: Tensor) -> LinearHead:
    """Add up linear heads; the visual scores of unseen classes become the mean of the others'.  [*B, M], [*B, C]"""
    weight, bias = torch.zeros_like(heads[0].weight), torch.zeros_like(heads[0].weight[..., 0])
    for number, head in enumerate(heads):
        own_bias = torch.zeros_like(bias) if head.bias is None else head.bias  # [*B, C]
        w, b = head.weight, own_bias
        if number >= len(heads) - len(VISUAL):
            share = seen.to(w.dtype) / seen.sum(-1, keepdim=True).clamp_min(1)  # [*B, C]
            w = torch.where(seen.unsqueeze(-1), w, share.unsqueeze(-2) @ w)  # [*B, C, D]
            b = torch.where(seen, b, (share * b).sum(-1, keepdim=True))  # [*B, C]
        weight = weight + factors[..., number, None, None] * w
        bias = bias + factors[..., number, None] * b
    return LinearHead(weight, bias)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `auto`."""
    register(Auto)
