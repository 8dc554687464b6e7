"""auto: phrases and examples blended by what held-out examples say; stacked generalisation, Wolpert 1992."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot.errors import MissingInput
from fewshot_plugins._blend import blend_weights
from fewshot_plugins._holdout import HeldOut, class_folds, hold_out, shot_folds, without_copies
from fewshot_plugins._phrases import centred_text, ridge_with_phrases, used, worth
from fewshot_plugins._stacking import GAMMA_HELP, stack
from fewshot_plugins.gda import discriminants
from fewshot_plugins.prototypical import Prototypical
from fewshot_plugins.ridge import best_penalty, principal, solved

VISUAL: tuple[Callable[[Task], LinearHead], ...] = (
    Prototypical().fit,
    lambda task: LinearHead(*discriminants(task, shrink=0.1)),
    lambda task: LinearHead(*discriminants(task, shrink=0.5)),
)
RIDGE = 0.8  # prior share of ridge among the others than text at one shot, where GDA knows no more than class means
TEXT = 0.3  # of the text's prior weight is left to it alone, since ridge has the phrases too
FEW = 2.5  # up to so many shots a fold leaves heads too unlike the whole to take their scale from


@dataclass(frozen=True)
class Auto(Strategy):
    """Blend phrases, class means, ridge regression and GDA, weighed by leave-one-out on the examples alone.

    logits = sum_m w_m logits_m / s_m over the members m, a linear head [C, D]. With t_k the mean of class k's phrases,
    x_i the examples and m the mean of the class means, they are

        text    (z - m/2).t_k
        ridge   one-hot labels regressed on the x_i and, as one more example of each class, on its phrases,
                mean x + 0.6 u mean |x - mean x| unit(t_k - mean t), u in [0, 1] by what the phrases are worth on the
                x_i; penalty 0.2; every class counts the same, however many examples it has
        means   `prototypical`, and twice `gda` without text, of shrinkage 0.1 and 0.5

    Each fold leaves one example of every class out and refits the members on the rest; s_m is the spread of a member's
    held-out logits (at one or two shots: of those on classes left out; where that leaves no two classes to compare, on
    all examples). Copies of an example count once, since one would give away the other that is held out.

    Prior weights w0 are first scaled by the factor c of least held-out cross-entropy; then w >= 0 minimises sum_i
    CE(held-out logits of i) + pull / n^2 |w / c - w0|^2 / 2, n being the shots, where they differ their harmonic
    mean. The fewer, the less a fold without one of them is like the whole, and the more the prior counts. At one shot
    nothing can be left out and judged, so w = w0: with a what the text alone would weigh, d = visual n^1/4 and r =
    overlap, 0.3 max(0, a - r d) / (1 - r^2) / n for text and max(d - r a, d / 10) / (1 - r^2) for the others, of
    which ridge has 0.8 / n^(1 - u), more the more it has of the phrases, and the two GDA the rest in equal parts. A
    class without examples is judged by its phrases, and every class where one alone has examples; its score by class
    means and GDA is the others' mean, and classes with examples are held back by gamma (calibrated stacking, Chao 2016,
    arXiv:1605.04253). Defaults are round values that did well on the training splits of four data sets and one without
    splits.
    """

    name = "auto"
    uses = frozenset({"text"})
    unseen = True
    paper = "stacked generalisation: Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1; weights from held-out examples"
    pull: float = option(200.0, "strength of the prior weights, in held-out examples times squared shots", min=0.0)
    visual: float = option(1.4, "assumed weight of the visual members alone, at one shot", min=0.0)
    overlap: float = option(0.3, "assumed correlation between the errors of text and examples", min=0.0, max=0.9)
    folds: int = option(5, "how many times examples are left out, at most; fewer when there are fewer shots", min=2)
    gamma: float | None = option(None, GAMMA_HELP)

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
        task = without_copies(task)
        even = balance(task)
        return stack(lambda part: self._blend(part, even), task, self.gamma)

    def _blend(self, task: Task, even: Tensor) -> LinearHead:
        fits = partial(members, even=even)
        heads = fits(task)
        held = hold_out(fits, task, shot_folds(task, self.folds))
        spread = held.spread()  # [*B, M]
        if bool((spread == 0).any()):  # no fold left two classes to compare, as with two examples in all
            spread = torch.where(spread > 0, spread, own_spread(heads, task))
        spread = spread.clamp_min(1e-9)
        prior = self.prior_weights(task)  # [*B, M]
        weights = weigh(held, spread, prior, self.pull / shots(task).square())  # [*B, M]
        return blend(heads, weights / whole_spread(fits, task, spread).clamp_min(1e-9), task.seen())

    def prior_weights(self, task: Task) -> Tensor:
        """Weights before anything visual is judged.  -> [*B, M]

        Of two scores with unit spread that set the right class apart by a and d, and whose errors correlate by r, the
        best linear blend has the weights (a - r d) / (1 - r^2) and (d - r a) / (1 - r^2): linear discriminant
        analysis. a is what the text would get alone (`worth`), which the examples tell even at one shot; d is assumed
        to be `visual` at one shot and to grow with the fourth root of the shots. The text's part is divided by the
        shots, since in the folds, where each class lacks an example, it looks better than it is on the whole; and only
        `TEXT` of it is left, since ridge has the phrases too.
        """
        count = shots(task).unsqueeze(-1)  # [*B, 1]
        strength, r = self.visual * count**0.25, self.overlap
        if not task.text.shape[-2]:
            return strength * shares(RIDGE / count)
        alone = worth(task)  # [*B, 1]
        said = TEXT * (alone - r * strength).clamp_min(0) / (1 - r * r) / count  # [*B, 1]
        shown = (strength - r * alone).clamp_min(0.1 * strength) / (1 - r * r)  # [*B, 1]
        visual = shown * shares(RIDGE / count ** (1 - used(alone)))  # [*B, M - 1]
        one = task.seen().sum(-1, keepdim=True) < 2  # [*B, 1] examples of one class alone tell nothing apart
        return torch.cat([torch.where(one, alone, said), torch.where(one, 0.0, visual)], -1)


def shares(ridge: Tensor) -> Tensor:
    """What of the visual members' weight each has, given the share of ridge.  [*B, 1] -> [*B, ridge and `VISUAL`]"""
    return torch.cat([ridge, 0 * ridge, (1 - ridge) / 2, (1 - ridge) / 2], -1)


def members(task: Task, even: Tensor) -> list[LinearHead]:
    """Fit the members: the text first, where there is text, then ridge, then those that know nothing of phrases.

    Ridge counts an example of a class by the class's weight in `even` [*B, C]; the others average within classes.
    """
    weight = even.gather(-1, task.labels.clamp_min(0))  # [*B, S]
    if task.text.shape[-2]:
        first = [centred_text(task), ridge_with_phrases(task, weight)]
    else:
        data = principal(task, weight)
        first = [LinearHead(*solved(data, best_penalty(data, task)))]
    return first + [fit(task) for fit in VISUAL]


def balance(task: Task) -> Tensor:
    """Weights of examples that let every class count the same: mean number of examples of a class / its own.

    Without them a regression takes most images for the class with the most examples.  -> [*B, C]; 1 for unseen classes
    """
    counts = task.counts()  # [*B, C]
    mean = counts.sum(-1, keepdim=True) / task.seen().sum(-1, keepdim=True).clamp_min(1)  # [*B, 1]
    return torch.where(counts > 0, mean / counts.clamp_min(1), torch.ones_like(counts))


def shots(task: Task) -> Tensor:
    """Harmonic mean of the numbers of examples of the classes that have any: near the least of them.  -> [*B]"""
    seen = task.seen()  # [*B, C]
    return seen.sum(-1).clamp_min(1) / (seen / task.counts().clamp_min(1)).sum(-1).clamp_min(1e-9)


def weigh(held: HeldOut, spread: Tensor, prior: Tensor, pull: Tensor) -> Tensor:
    """Weights of the members' logits, these divided by `spread`.  [*B, M] x 2, [*B] -> [*B, M]"""
    labels = torch.where(held.judged(), held.labels, -1)  # [*B, N]
    logits = held.logits / spread[..., None, None, :]  # [*B, N, C, M]
    hidden = ~held.columns.unsqueeze(-1)  # [*B, N, C, 1]
    blended = logits @ prior[..., None, :, None]  # [*B, N, C, 1]
    one = torch.ones_like(prior[..., :1])  # [*B, 1]
    factor = blend_weights(blended.masked_fill(hidden, -torch.inf), labels, one, 0.1 * one[..., 0])  # [*B, 1]
    factor = factor.clamp_min(0.1)  # where the prior is worse than nothing
    return blend_weights(logits.masked_fill(hidden, -torch.inf), labels, factor * prior, pull / factor[..., 0].square())


def whole_spread(fits: Callable[[Task], list[LinearHead]], task: Task, spread: Tensor) -> Tensor:
    """Spread of each member's logits on new images when fitted on the whole support.  -> [*B, M]

    From `FEW` shots on it is much what the folds saw. Below, it is measured on classes left out. When there are too
    few classes for that, the folds' has to do.
    """
    few = shots(task) < FEW  # [*B]
    if not bool(few.any()):
        return spread
    other = hold_out(fits, task, class_folds(task)).spread()  # [*B, M]
    return torch.where(few.unsqueeze(-1) & (other > 0), other, spread)


def own_spread(heads: list[LinearHead], task: Task) -> Tensor:
    """Spread of each member's logits on the very examples it was fitted to, larger than on new images.  -> [*B, M]

    Over the classes with examples; where only one has any, that of the text over all classes, for every member.
    """
    seen = task.seen()  # [*B, C]
    one = seen.sum(-1, keepdim=True) < 2  # [*B, 1]
    logits = torch.stack([head.logits(task.support) for head in heads], -1)  # [*B, S, C, M]
    columns = (seen | one).unsqueeze(-2).expand(logits.shape[:-1])  # [*B, S, C]
    found = HeldOut(task.support, logits, task.labels, columns).spread()  # [*B, M]
    return torch.where(one, found[..., :1], found)


def blend(heads: list[LinearHead], factors: Tensor, seen: Tensor) -> LinearHead:
    """Add up linear heads; what `VISUAL` says of unseen classes becomes the mean of the others'.  [*B, M], [*B, C]"""
    weight, bias = torch.zeros_like(heads[0].weight), torch.zeros_like(heads[0].weight[..., 0])
    share = seen.to(weight.dtype) / seen.sum(-1, keepdim=True).clamp_min(1)  # [*B, C]
    for number, head in enumerate(heads):
        w, b = head.weight, torch.zeros_like(bias) if head.bias is None else head.bias  # [*B, C, D], [*B, C]
        if number >= len(heads) - len(VISUAL):
            w = torch.where(seen.unsqueeze(-1), w, share.unsqueeze(-2) @ w)  # [*B, C, D]
            b = torch.where(seen, b, (share * b).sum(-1, keepdim=True))  # [*B, C]
        weight = weight + factors[..., number, None, None] * w
        bias = bias + factors[..., number, None] * b
    return LinearHead(weight, bias)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `auto`."""
    register(Auto)
