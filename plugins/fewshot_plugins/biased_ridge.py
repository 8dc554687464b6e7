"""Ridge regression drawn to a source classifier. Kuzborskij, Orabona 2013, ICML, PMLR 28(3), 942-950."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewshot import LinearHead, Strategy, Task, hookimpl, make_task, option
from fewshot_plugins._domains import domains
from fewshot_plugins._loo import best_scale, repeated
from fewshot_plugins.ridge import DEFAULT_PENALTY, DEFAULT_SCALE, PENALTIES, Principal, Ridge, left_out, principal

TRUSTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of the source classifier that leave-one-out tries
DEFAULT_TRUST = 0.5


def source_classifier(task: Task) -> tuple[Tensor, Tensor]:
    """Ridge regression on the source's items of the task's classes; zeros for classes it lacks.  -> [C, D], [C]"""
    held, own = torch.unique(task.source_labels, return_inverse=True)
    head = Ridge(scale=1.0).fit(make_task(task.source, own, classes=len(held)))
    weight, bias = task.source.new_zeros(task.classes, task.dim), task.source.new_zeros(task.classes)
    assert head.bias is not None
    weight[held], bias[held] = head.weight, head.bias
    return weight, bias


@dataclass(frozen=True)
class BiasedRidge(Strategy):
    """Regress one-hot labels on the examples with a squared penalty on how far the weights are from the source's.

    With W_s, b_s a ridge regression on the source, f = t (W_s x + b_s) its share t of the answer, and x, y the centred
    examples and labels, the target's weights are t W_s + (x'x + l I)^-1 x'(y - f), f centred too: the least of
    |y - W x|^2 + l |W - t W_s|^2. Leave-one-out residuals of this are those of a ridge regression onto y - f, so l and
    the trust t, tried from 0 (no transfer) to 1 (the paper's), are chosen by squared leave-one-out error and the
    scale of the logits by log-loss, as in `ridge`. With one shot a class nothing can be left out: l = 0.1, t = 0.5.
    """

    name = "biased_ridge"
    needs = frozenset({"support", "source"})
    batched = False
    paper = "Kuzborskij, Orabona 2013, PMLR 28(3), 942-950"
    lam: float | None = option(None, "penalty l; none chooses it by leave-one-out", min=1e-6)
    trust: float | None = option(None, "share t of the source's weights; none chooses it", min=0.0, max=1.0)
    scale: float | None = option(None, "factor on the scores; none chooses it by leave-one-out", min=0.0)

    def fit(self, task: Task) -> LinearHead:
        """Fit the source, then what it leaves unexplained.  -> weight [C, D], bias [C]"""
        both = domains(task, self.name)
        near = make_task(both.support, both.labels, source=both.source, source_labels=both.source_labels,
                         classes=task.classes)  # fmt: skip
        weight, bias = source_classifier(near)
        prior = near.support @ weight.mT + bias  # [S, C]
        data = principal(near)
        penalty, trust = self._choose(data, prior, near)
        rest = residual(data, trust * prior)
        scores = left_out(rest, rest.target.new_tensor(penalty)) + trust * prior  # [S, C]
        scale = best_scale(scores, near, DEFAULT_SCALE) if self.scale is None else self.scale
        w = trust * weight + (rest.axes @ (rest.dual / (rest.energy + penalty).unsqueeze(-1))).mT  # [C, D]
        b = data.target_mean - data.mean @ w.mT  # [1, C]
        return LinearHead((scale * w).to(task.dtype), (scale * b.squeeze(0)).to(task.dtype))

    def _choose(self, data: Principal, prior: Tensor, task: Task) -> tuple[float, float]:
        """Penalty and trust of the least squared leave-one-out error, among those that are not given."""
        test, hot = repeated(task), task.one_hot()  # [S], [S, C]
        alone = not bool(test.any())
        penalties = PENALTIES if self.lam is None else (self.lam,)
        trusts = TRUSTS if self.trust is None else (self.trust,)
        if alone:
            return (
                DEFAULT_PENALTY if self.lam is None else self.lam,
                DEFAULT_TRUST if self.trust is None else self.trust,
            )
        best, least = (penalties[0], trusts[0]), torch.inf
        rest = residual(data, prior)
        for penalty in penalties:
            none = (left_out(data, rest.target.new_tensor(penalty)) - hot)[test]  # [n, C] errors without trust
            full = (left_out(rest, rest.target.new_tensor(penalty)) + prior - hot)[test]  # [n, C] and with all of it
            for trust in trusts:  # errors are affine in it
                error = float(torch.lerp(none, full, trust).square().sum())
                if error < least:
                    best, least = (penalty, trust), error
        return best


def residual(data: Principal, explained: Tensor) -> Principal:
    """The regression problem for what is left of the targets.  explained [S, C]"""
    middle = explained.mean(0, keepdim=True)  # [1, C]
    change = explained - middle  # [S, C]
    wide = data.coordinates.shape[-2] <= data.axes.shape[-2]  # how `principal` found the axes
    lost = _vectors(data).mT @ change if wide else data.coordinates.mT @ change  # [R, C]
    return replace(data, target=data.target - change, target_mean=data.target_mean - middle, dual=data.dual - lost)


def _vectors(data: Principal) -> Tensor:
    root = data.energy.sqrt().unsqueeze(-2)  # [1, R]
    return torch.where(root > 0, data.coordinates / root.clamp_min(1e-150), 0.0)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `biased_ridge`."""
    register(BiasedRidge)
