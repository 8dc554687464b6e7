"""What a report's page shows of one task's items: mistakes, a map, misleading examples, near-duplicates."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewshot.analysis import Analysis
from fewshot.features import Features
from fewshot.figures import map_figure
from fewshot.reanalysis import Look
from fewshot.sheet import thumbnail

MISTAKES, EXAMPLES = 21, 14  # whole rows of the page


class Item(NamedTuple):
    """One picture, or one row of data without pictures; `thumbnail` is a data URI or empty."""

    name: str
    label: str
    thumbnail: str


class Card(NamedTuple):
    """Items that belong together, and what is to be said of them."""

    items: list[Item]
    caption: str
    note: str = ""


def look_section(name: str, look: Look) -> dict[str, Any]:
    """Everything the template shows of an analysis."""
    analysis, features = look.analysis, look.features
    item = functools.cache(functools.partial(_item, features))
    wrong = analysis.predicted != analysis.query_labels
    figure = None
    if analysis.position is not None:
        labels = np.concatenate([analysis.support_labels, analysis.query_labels])
        title = f"Embeddings of the task ({len(labels)} items)"
        support = len(analysis.support)
        figure = map_figure(f"{name}-t", title, analysis.position, labels, analysis.classes, support, wrong)
    return {
        "analysis": analysis,
        "pictures": bool(features.sources),
        "total": len(features.x),
        "wrong": int(wrong.sum()),
        "right": f"{100 * (1 - wrong.mean()):.1f}",
        "mistakes": _mistakes(analysis, item),
        "map": figure,
        "judged": int(np.isfinite(analysis.harm).sum()),
        "misleading": _misleading(analysis, item),
        "pairs": [Card([item(p.first), item(p.second)], f"cosine {p.cosine:.3f}") for p in analysis.pairs],
    }


def _item(features: Features, row: int) -> Item:
    source = features.sources[row] if features.sources else None
    name = "/".join(Path(source).parts[-2:]) if isinstance(source, str | Path) else f"item {row}"
    return Item(name, features.classes[features.labels[row]], "" if source is None else thumbnail(source))


def _mistakes(analysis: Analysis, item: Callable[[int], Item]) -> list[Card]:
    """Mistaken queries, the most confident ones first."""
    wrong = np.flatnonzero(analysis.predicted != analysis.query_labels)
    order = wrong[np.argsort(-analysis.confidence[wrong], kind="stable")][:MISTAKES]
    said = [f"taken for {analysis.classes[analysis.predicted[i]]}" for i in order]
    sure = [f"{100 * analysis.confidence[i]:.0f} % sure" for i in order]
    return [Card([item(int(analysis.query[i]))], s, c) for i, s, c in zip(order, said, sure, strict=True)]


def _misleading(analysis: Analysis, item: Callable[[int], Item]) -> list[Card]:
    """Support examples without which the queries fare better, the worst first."""
    harmful = np.flatnonzero(np.nan_to_num(analysis.harm) > 0)
    order = harmful[np.argsort(-analysis.harm[harmful], kind="stable")][:EXAMPLES]
    return [
        Card(
            [item(int(analysis.support[i]))],
            f"loss {-analysis.harm[i]:+.4f}",
            _queries(int(analysis.gain[i])),
        )
        for i in order
    ]


def _queries(gain: int) -> str:
    if not gain:
        return "as many right"
    return f"{abs(gain)} {'more' if gain > 0 else 'fewer'} right"
