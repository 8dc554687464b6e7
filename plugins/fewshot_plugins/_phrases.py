"""Phrases beside examples: as classifiers, what these are worth, and as further examples of a ridge regression."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fewshot import LinearHead, Task
from fewshot.arrays import unit
from fewshot_plugins._blend import blend_weights
from fewshot_plugins._holdout import HeldOut
from fewshot_plugins.prototypical import class_means
from fewshot_plugins.ridge import principal, solved
from fewshot_plugins.zero_shot import phrase_means

WEAK = 2.0  # pull on the worth of phrases, in examples: it only has to keep tiny tasks in bounds
LENGTH = 0.6  # of a phrase as an example, in lengths of a centred example
PENALTY = 0.2  # of the regression on examples and phrases


def centred_text(task: Task) -> LinearHead:
    """Cosine to the phrases, less half of what a typical image of the task scores.  -> weight [*B, C, D], bias [*B, C]

    Some phrases lie near every image (hubs). With m the mean over classes of the examples, logit_k = (z - m/2).t_k:
    half, because m also holds what the classes have in common with their phrases.
    """
    text = unit(phrase_means(task))  # [*B, C, D]
    seen = task.seen().to(task.dtype).unsqueeze(-2)  # [*B, 1, C]
    mean = seen @ class_means(task) / seen.sum(-1, keepdim=True).clamp_min(1)  # [*B, 1, D]
    return LinearHead(text, -(text @ mean.mT).squeeze(-1) / 2)


def worth(task: Task) -> Tensor:
    """Factor on the scores of `centred_text`, of unit spread, that suits the examples best: 0 for useless phrases.

    The phrases were not made of the examples, so that even one example a class can tell.  -> [*B, 1]
    """
    scores = centred_text(task).logits(task.support)  # [*B, S, C]
    seen = task.seen().unsqueeze(-2).expand_as(scores)
    spread = HeldOut(task.support, scores.unsqueeze(-1), task.labels, seen).spread().clamp_min(1e-9)  # [*B, 1]
    scores = (scores / spread.unsqueeze(-1)).masked_fill(~seen, -torch.inf).unsqueeze(-1)  # [*B, S, C, 1]
    return blend_weights(scores, task.labels, torch.ones_like(spread), WEAK)


def used(worth: Tensor) -> Tensor:
    """Part of the phrases that serves as examples: all from a worth of 1 on, none up to 0.5, reached by chance too."""
    return (2 * worth - 1).clamp(0, 1)


def as_examples(task: Task) -> Tensor:
    """Put the phrases where examples of their classes may lie.  -> [*B, C, D]

    Embeddings of images and of texts lie apart, so the mean over classes of the phrases is taken from them, and the
    mean of the examples is put in its place. Phrases worth little are drawn to that mean (`used`).
    """
    real = (task.labels >= 0).to(task.dtype).unsqueeze(-1)  # [*B, S, 1]
    count = real.sum(-2, keepdim=True).clamp_min(1)  # [*B, 1, 1]
    mean = real.mT @ task.support / count  # [*B, 1, D]
    length = (real * (task.support - mean)).norm(dim=-1).sum(-1)[..., None, None] / count  # [*B, 1, 1]
    text = unit(phrase_means(task))  # [*B, C, D]
    share = LENGTH * used(worth(task)).unsqueeze(-1)  # [*B, 1, 1]
    rows: Tensor = mean + share * length * unit(text - text.mean(-2, keepdim=True))
    return rows


def ridge_with_phrases(task: Task, weight: Tensor) -> LinearHead:
    """Regress one-hot labels on the examples and the phrases, in closed form.  -> weight [*B, C, D], bias [*B, C]

    `weight` [*B, S] is what each example counts; a phrase counts 1.
    """
    own = torch.arange(task.classes, device=task.device).expand(*task.batch_shape, task.classes)  # [*B, C]
    support = torch.cat([task.support, as_examples(task)], -2)
    both = replace(task, support=support, labels=torch.cat([task.labels, own], -1))
    data = principal(both, torch.cat([weight, torch.ones_like(own, dtype=weight.dtype)], -1))
    return LinearHead(*solved(data, weight.new_full(task.batch_shape, PENALTY)))
