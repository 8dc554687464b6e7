"""evaluate(): one strategy on drawn episodes, block by block, with every number's provenance."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.blame import blamed
from fewshot.calibrate import fit_calibrated
from fewshot.episodes import PAD, Episodes
from fewshot.errors import DataError, MissingInput
from fewshot.features import Features
from fewshot.options import to_json
from fewshot.provenance import peak_mb, versions
from fewshot.report import Budget, Cost, Result
from fewshot.scoring import Scores
from fewshot.strategy import Head, Strategy, fit
from fewshot.task import Task

BLOCK = 64  # episodes solved at once: few enough for the cache, enough to hide Python
ROWS = 65_536  # rows gathered at once, so that episodes with many items come in smaller blocks

IN_DATA = {  # what a strategy may need, and where a bench takes it from
    "support": "labelled examples: ask for one shot or more",
    "text": "class names or phrases: take an encoder that reads texts (--encoder lite), or put text into the .npz",
    "attributes": "class attributes: take a data set that has them, such as cifar_awa2",
    "source": "labelled examples of another domain: name the split that holds them (--set source=SPLIT)",
}


@dataclass(frozen=True, slots=True)
class Scored:
    """One scored block, as `observe` sees it."""

    episode: NDArray[np.int64]  # [B] number of each episode
    query: NDArray[np.int32]  # [B, Q] rows of the data
    labels: NDArray[np.int32]  # [B, Q]
    classes: NDArray[np.int32]  # [B, C] class of the data for each label
    logits: Tensor  # [B, Q, C]


def evaluate(
    strategy: Strategy,
    features: Features,
    episodes: Episodes,
    *,
    device: torch.device | str = "cpu",
    block: int = BLOCK,
    calibrate: bool = False,
    observe: Callable[[Scored], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Solve every episode and score its queries. The strategy never meets a query's label.

    Parameters
    ----------
    block:
        episodes solved at once; results are the same for any number up to rounding.
    calibrate:
        scale each episode's logits by what its held-out examples say, as `fewshot.calibrate.fit_calibrated` does.
    observe:
        called with each scored block, e.g. to collect mistakes.
    progress:
        called with the number of episodes just done.

    Raises
    ------
    MissingInput
        when the data lacks what the strategy needs.
    DataError
        when the episodes were drawn from other data.
    InvalidTask
        when the strategy returns NaN.
    """
    if episodes.data != features.data:
        raise DataError(f"these episodes were drawn from other data than {features.name!r}; draw them again")
    solver = Solver(strategy, features, episodes, torch.device(device), calibrate=calibrate)
    scores = Scores(len(episodes), len(features.classes), solver.device)
    begin, fitting = time.perf_counter(), 0.0
    with torch.inference_mode():
        for chosen in blocks(episodes, block):
            logits, seconds = solver.solve(chosen)
            fitting += seconds
            labels, classes = episodes.query_labels[chosen], episodes.classes[chosen, : logits.shape[-1]]
            query = episodes.query[chosen, : logits.shape[-2]]
            labels = labels[:, : logits.shape[-2]]
            scores.add(
                torch.from_numpy(chosen).to(solver.device),
                logits,
                torch.from_numpy(labels).to(solver.device, torch.int64),
                torch.from_numpy(classes).to(solver.device, torch.int64),
                solver.seen(chosen, logits.shape[-1]),
            )
            if observe:
                observe(Scored(chosen, query, labels, classes, logits))
            if progress:
                progress(len(chosen))
        scores.flush()
    seconds = time.perf_counter() - begin
    cost = Cost(
        seconds=seconds,
        fit_seconds=fitting,
        episodes_per_second=len(episodes) / seconds,
        peak_mb=peak_mb(solver.device),
        embedded_per_second=features.embedded_per_second,
        dim=features.x.shape[1],
    )
    return _result(solver, features, scores, cost)


def blocks(episodes: Episodes, block: int) -> Iterator[NDArray[np.int64]]:
    """Yield numbers of up to `block` episodes that have equally many classes and queries, in order of the first."""
    shape = np.stack([episodes.ways, episodes.queries], 1)  # [E, 2]
    _, first, group = np.unique(shape, axis=0, return_index=True, return_inverse=True)
    width = episodes.support.shape[1] + episodes.query.shape[1] + episodes.unlabeled.shape[1]
    step = max(1, min(block, ROWS // max(1, width)))
    for g in first.argsort():
        members = np.flatnonzero(group.reshape(-1) == g)
        yield from (members[a : a + step] for a in range(0, len(members), step))


class Solver:
    """Gathers the tasks of a block, fits and scores them, reusing its buffer from block to block."""

    def __init__(
        self,
        strategy: Strategy,
        features: Features,
        episodes: Episodes,
        device: torch.device,
        *,
        calibrate: bool = False,
    ) -> None:
        self.strategy = strategy
        self.calibrate = calibrate
        self.episodes = episodes
        self.device = device
        self.x = features.x.to(device)  # [n, D]
        wanted = strategy.needs | strategy.uses
        self.text = (features.text if "text" in wanted else features.text[:, :0]).to(device)  # [C, P, D]
        self.text_weight = features.text_weight[:, : self.text.shape[1]].to(device)  # [C, P]
        self.attributes = (features.attributes if "attributes" in wanted else features.attributes[:, :0]).to(device)
        self.source, self.source_labels = self._source(features, "source" in wanted)
        self._buffer = self.x.new_empty(0, self.x.shape[1])
        self._checked = False
        self._ways, self._queries = episodes.ways, episodes.queries  # [E] each
        self._ragged = bool((episodes.support == PAD).any())
        self._check(features)

    def _check(self, features: Features) -> None:
        has = {"text": self.text.shape[1], "attributes": self.attributes.shape[1], "source": len(self.source)}
        has["support"] = self.episodes.support.shape[1]
        for need in sorted(self.strategy.needs & set(has)):
            if not has[need]:
                raise MissingInput(f"strategy {self.strategy.name!r} on {features.name!r} needs {IN_DATA[need]}")
        if "support" in self.strategy.needs and not self.strategy.unseen:
            labels = np.sort(self.episodes.support_labels, 1)  # [E, S], PAD first
            lacking = (np.diff(labels) > 0).sum(1) + (labels[:, 0] != PAD) < self._ways
            if lacking.any():
                raise MissingInput(
                    f"strategy {self.strategy.name!r} needs an example of every class; episode {lacking.argmax()} "
                    "has a class without any"
                )

    def _source(self, features: Features, wanted: bool) -> tuple[Tensor, Tensor]:
        split = self.episodes.spec.source if wanted else ""
        rows = np.flatnonzero(np.asarray(features.splits) == split) if split else np.zeros(0, np.int64)
        if split and not len(rows):
            raise DataError(f"{features.name!r} has no split {split!r} to take source examples from")
        labels = torch.from_numpy(features.labels[rows]).to(self.device)
        return self.x[torch.from_numpy(rows).to(self.device)], labels

    def _number_source(self, classes: Tensor) -> Tensor:
        """Number the source's classes as the episodes do, those that one lacks from C on.  [B, C] -> [B, N]"""
        ways = classes.shape[-1]
        held, rank = self.source_labels.unique(return_inverse=True)
        if not bool(torch.isin(held, classes).any()):
            apart: Tensor = ways + rank  # [N]
            return apart.expand(len(classes), -1)
        number = ways + torch.arange(len(self.text), device=self.device).repeat(len(classes), 1)  # [B, classes]
        number.scatter_(1, classes, torch.arange(ways, device=self.device).expand_as(classes))
        return number[:, self.source_labels]

    def solve(self, chosen: NDArray[np.int64]) -> tuple[Tensor, float]:
        """Fit and score the chosen episodes.  [B] -> [B, Q, C] and the seconds spent in `fit`"""
        task, query = self.gather(chosen)
        begin = time.perf_counter()
        head: Head
        with blamed(self.strategy):
            if self.calibrate:
                head = fit_calibrated(self.strategy, task)
            elif self._checked and self.strategy.batched:
                head = self.strategy.fit(task)  # rows of data that passed the check in the first block and in Features
            else:
                head = fit(self.strategy, task)
                self._checked = True
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return head.logits(query), time.perf_counter() - begin

    def gather(self, chosen: NDArray[np.int64]) -> tuple[Task, Tensor]:
        """Copy the rows of support, queries and unlabelled items once; the task holds views of them.

        The views are good until the next call. Returns the task and its queries [B, Q, D].
        """
        e = self.episodes
        ways, queries, size = int(self._ways[chosen[0]]), int(self._queries[chosen[0]]), len(chosen)
        apart = ways * e.spec.unlabeled  # U
        rows = np.concatenate([e.support[chosen], e.query[chosen, :queries], e.unlabeled[chosen, :apart]], 1)
        flat = torch.from_numpy(rows.reshape(-1)).to(self.device)
        if len(self._buffer) < len(flat):
            self._buffer = self.x.new_empty(len(flat), self.x.shape[1])
        out = self._buffer[: len(flat)]
        torch.index_select(self.x, 0, flat.clamp_min(0) if self._ragged else flat, out=out)
        items = out.view(size, rows.shape[1], -1)  # [B, S + Q + U, D]
        shown = e.support.shape[1]  # S
        support, query = items[:, :shown], items[:, shown : shown + queries]
        unlabeled = items[:, shown + queries :]
        labels = torch.from_numpy(e.support_labels[chosen]).to(self.device, torch.int64)  # [B, S]
        if self._ragged:
            support.masked_fill_((labels == PAD).unsqueeze(-1), 0.0)  # in the buffer
        classes = torch.from_numpy(e.classes[chosen, :ways]).to(self.device, torch.int64)  # [B, C]
        adapts = "unlabeled" in self.strategy.needs | self.strategy.uses
        task = Task(
            support=support,
            labels=labels,
            text=self.text[classes],
            text_weight=self.text_weight[classes],
            attributes=self.attributes[classes],
            unlabeled=query[:, :0] if not adapts else unlabeled if apart else query,
            source=self.source.expand(size, -1, -1),
            source_labels=self._number_source(classes),
        )
        return task, query

    def seen(self, chosen: NDArray[np.int64], ways: int) -> Tensor | None:
        """Which classes have support, for episodes with unseen ones.  -> [B, C] bool, or None"""
        if not self.episodes.spec.unseen:
            return None
        labels = self.episodes.support_labels[chosen]  # [B, S]
        return torch.from_numpy((labels[:, :, None] == np.arange(ways)).any(1)).to(self.device)


def _result(solver: Solver, features: Features, scores: Scores, cost: Cost) -> Result:
    strategy, episodes = solver.strategy, solver.episodes
    recalls = zip(features.classes, scores.recalls(), strict=True)
    return Result(
        dataset=features.name,
        data=features.data,
        encoder=features.encoder,
        fingerprint=features.fingerprint,
        strategy=strategy.name,
        options=to_json(strategy),
        transductive=strategy.transductive,
        calibrated=solver.calibrate,
        spec=episodes.spec.to_dict(),
        episodes=episodes.checksum(),
        metrics=scores.metrics(),
        accuracies=[round(float(a), 6) for a in scores.values["accuracy"]],
        recall={name: (right, total) for name, (right, total) in recalls if total},
        mistakes=[(features.classes[a], features.classes[b], n) for a, b, n in scores.mistakes()],
        reliability=scores.tables.sum(0).tolist(),
        budget=budget(strategy, features, episodes),
        device=str(solver.device),
        versions=versions(),
        cost=cost,
    )


def budget(strategy: Strategy, features: Features, episodes: Episodes) -> Budget:
    """Count what the strategy was shown in an episode, and which of it was labelled."""
    wanted = strategy.needs | strategy.uses
    apart = episodes.unlabeled.shape[1] > 0
    unlabeled = episodes.unlabeled if apart else episodes.query
    spec = episodes.spec
    return Budget(
        support=float((episodes.support != PAD).sum(1).mean()),
        unlabeled=float((unlabeled != PAD).sum(1).mean()) if "unlabeled" in wanted else 0.0,
        unlabeled_from=("apart" if apart else "queries") if "unlabeled" in wanted else "",
        source=features.splits.count(spec.source) if "source" in wanted and spec.source else 0,
        phrases=features.text.shape[1] if "text" in wanted else 0,
        attributes=features.attributes.shape[1] if "attributes" in wanted else 0,
    )
