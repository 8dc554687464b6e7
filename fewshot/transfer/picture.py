"""t-SNE pictures of source and target, before and after a strategy brought them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.analysis import tsne
from fewshot.errors import FewshotError
from fewshot.registry import registry
from fewshot.svg import draw_svg, short
from fewshot.task import Task, make_task
from fewshot.transfer.trial import Pair, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FALLBACK = ("coral", "dann")  # whose adaptation is shown when the advised strategy moves nothing
MOST = 400  # target items in the picture
COLOURS = ("#d55e00", "#0072b2")  # source, target


@runtime_checkable
class Mover(Protocol):
    """A strategy that can tell where it moves the items of both domains."""

    def moved(self, task: Task) -> tuple[Tensor, Tensor]:
        """Return the source's and the target's items in the space where the classifier lives.  -> [N, M], [n, M]"""
        ...


@dataclass(frozen=True, slots=True)
class Pictures:
    """Two drawings, and the strategy whose adaptation the second shows; empty without scikit-learn or a mover."""

    before: str
    after: str
    strategy: str


def pictures(pair: Pair, advised: str, seed: int = 0) -> Pictures:
    """Draw the domains as they are, and as the advised strategy, or else coral or dann, moves them."""
    pair = thinned(pair, seed)
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(len(pair.target))[:MOST])
    pair = Pair(pair.source, pair.source_labels, pair.target[rows], pair.labels[rows], pair.classes)
    before = _draw("before", "as the encoder sees them", pair.source, pair.target, seed)
    for name in (advised, *FALLBACK):
        strategy: object = registry().strategies[name]() if name in registry().strategies else None
        if not isinstance(strategy, Mover):
            continue
        task = make_task(pair.target, pair.labels, source=pair.source, source_labels=pair.source_labels,
                         classes=len(pair.classes))  # fmt: skip
        try:
            source, target = strategy.moved(task)
        except FewshotError:
            continue
        return Pictures(before, _draw("after", f"after {short(name)}", source.float(), target.float(), seed), name)
    return Pictures(before, "", "")


def _draw(name: str, title: str, source: Tensor, target: Tensor, seed: int) -> str:
    position = tsne(torch.cat([source, target]).cpu().numpy(), seed)  # [N + n, 2]
    if position is None:
        return ""
    return domain_figure(name, title, position, len(source))


def domain_figure(name: str, title: str, position: NDArray[np.float64], count: int) -> str:
    """Draw a map of which the first `count` rows are the source's.  [N + n, 2]"""

    def paint(axes: Axes) -> None:
        parts = (("source", position[:count]), ("target", position[count:]))
        for (label, part), colour, mark in zip(parts, COLOURS, "o^", strict=True):
            axes.scatter(part[:, 0], part[:, 1], s=14, color=colour, marker=mark, alpha=0.6, linewidth=0, label=label)
        axes.set(title=title, xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", xticks=[], yticks=[])
        axes.legend(loc="upper right")

    return draw_svg(name, f"map of source and target, {title}", (5.4, 4.6), paint)
