"""analyse(): one larger task drawn from a data set, and what a look at its single items tells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.duplicates import MOST, Pair, near_pairs
from fewshot.episodes import Episodes, EpisodeSpec
from fewshot.errors import DataError
from fewshot.evaluate import Solver
from fewshot.features import Features
from fewshot.influence import leave_one_out
from fewshot.strategy import Strategy, fit

WAYS, SHOTS, QUERIES = 20, 16, 30  # at most so many classes, examples a class and queries a class
PAIRS = 12
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What became of each item of one task. Rows point into the data; labels count the task's classes from 0."""

    strategy: str
    seed: int
    classes: tuple[str, ...]  # W names
    support: Ints  # [S] rows
    support_labels: Ints  # [S] in [0, W)
    query: Ints  # [Q] rows
    query_labels: Ints  # [Q] in [0, W)
    predicted: Ints  # [Q] in [0, W)
    confidence: Floats  # [Q] in [0, 1]
    harm: Floats  # [S] nats, see `leave_one_out`; NaN where the strategy cannot do without the example
    gain: Floats  # [S] queries
    pairs: list[Pair]  # nearest rows of different classes in the whole data
    compared: int  # rows that `pairs` were sought among
    position: Floats | None  # [S + Q, 2] t-SNE map; None without scikit-learn or with too few items


def analyse(strategy: Strategy, features: Features, spec: EpisodeSpec, *, seed: int = 0) -> Analysis:
    """Draw a task of up to 20 classes with at least 5 shots (none when `spec` has none), and look at every item of it.

    Pure: the same features, strategy, spec and seed give the same analysis. Items come from the splits of `spec`.

    Raises
    ------
    DataError
        when fewer than two classes have enough items.
    MissingInput
        when the data lacks what the strategy needs.
    """
    episode = draw_one(features, spec, seed)
    rows = np.concatenate([episode.support[0], episode.query[0]]).astype(np.int64)
    truth = torch.from_numpy(episode.query_labels[0]).long()  # [Q]
    with torch.inference_mode():
        batch, queries = Solver(strategy, features, episode, torch.device("cpu")).gather(np.zeros(1, np.int64))
        task, query = batch[0], queries[0]
        probability = fit(strategy, task).logits(query).double().softmax(-1)  # [Q, W]
        harm, gain = leave_one_out(strategy, task, query, truth)
        among = np.arange(len(features.x))
        if len(among) > MOST:
            among = np.sort(np.random.default_rng(seed).permutation(among)[:MOST])
        pairs = near_pairs(features.x[torch.from_numpy(among)], features.labels[among], PAIRS)
    confidence, predicted = probability.max(-1)  # [Q] each
    return Analysis(
        strategy=strategy.name,
        seed=seed,
        classes=tuple(features.classes[c] for c in episode.classes[0]),
        support=episode.support[0].astype(np.int64),
        support_labels=episode.support_labels[0].astype(np.int64),
        query=episode.query[0].astype(np.int64),
        query_labels=truth.numpy(),
        predicted=predicted.numpy(),
        confidence=confidence.numpy(),
        harm=harm.numpy(),
        gain=gain.numpy(),
        pairs=[Pair(int(among[p.first]), int(among[p.second]), p.cosine) for p in pairs],
        compared=len(among),
        position=tsne(features.x[torch.from_numpy(rows)].numpy(), seed),
    )


def draw_one(features: Features, spec: EpisodeSpec, seed: int) -> Episodes:
    """Draw the task: classes at random, and of each as many items as there are, up to the limits of this file.

    A class gives at most half of its items to the support unless support and queries come from splits of their own.

    Raises
    ------
    DataError
        when fewer than two classes have enough items.
    """
    rng = np.random.default_rng(seed)
    taught, apart, asked = spec.split.partition(">")
    wanted = min(max(5, np.max(spec.shot)), SHOTS) if np.max(spec.shot) else 0
    support: list[Ints] = []
    query: list[Ints] = []
    chosen: list[int] = []
    for c in rng.permutation(len(features.classes)):
        pool = rng.permutation(_rows(features, c, taught))
        shots = min(wanted, len(pool) if apart else len(pool) // 2)
        rest = rng.permutation(_rows(features, c, asked)) if apart else pool[shots:]
        if len(rest) and (shots or not wanted):
            chosen.append(int(c))
            support.append(pool[:shots])
            query.append(rest[:QUERIES])
        if len(chosen) == WAYS:
            break
    if len(chosen) < 2:
        raise DataError(f"{features.name}: fewer than two classes have items for support and queries")
    order = np.argsort(chosen)
    support, query = [support[i] for i in order], [query[i] for i in order]
    return Episodes(
        spec=EpisodeSpec(
            way=len(chosen), shot=wanted, query=QUERIES, episodes=1, seed=seed, split=spec.split, source=spec.source
        ),
        data=features.data,
        classes=np.sort(chosen).astype(np.int32)[None],  # [1, W]
        support=np.concatenate(support).astype(np.int32)[None],  # [1, S]
        support_labels=_labels(support),
        query=np.concatenate(query).astype(np.int32)[None],  # [1, Q]
        query_labels=_labels(query),
        unlabeled=np.zeros((1, 0), np.int32),
    )


def _rows(features: Features, label: int, split: str) -> Ints:
    here = features.labels == label
    return np.flatnonzero(here & (np.asarray(features.splits) == split) if split else here)


def _labels(groups: list[Ints]) -> NDArray[np.int32]:
    """Number of its group for each row.  -> [1, n]"""
    return np.repeat(np.arange(len(groups), dtype=np.int32), [len(g) for g in groups])[None]


def tsne(x: NDArray[np.float32], seed: int) -> Floats | None:
    """Map embeddings to the plane (van der Maaten, Hinton 2008); None without scikit-learn or below 10 rows.

    [n, D] -> [n, 2], centred and scaled into [-1, 1].
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return None
    if len(x) < 10:
        return None
    placed: Floats = TSNE(perplexity=min(30.0, (len(x) - 1) / 3), init="pca", random_state=seed).fit_transform(x)
    placed = placed.astype(np.float64) - placed.mean(0)
    return placed / max(float(np.abs(placed).max()), 1e-12)
