"""Scores: metrics of many episodes, block by block, in memory that holds a few numbers an episode."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.episodes import UNKNOWN
from fewshot.errors import InvalidTask
from fewshot.metrics import calibration, classification, gzsl, openset
from fewshot.metrics.interval import Estimate, jackknife, mean_interval

GROUPS = 20  # groups of episodes that the jackknife of a pooled metric leaves out in turn
MISTAKES = 100  # pairs of confused classes that are kept
AT_ONCE = 200_000  # logits scored at once: a block of few classes is so small that calling torch takes longest

Block = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]  # the arguments of `Scores.add`


class Scores:
    """Adds up blocks of scored queries; `metrics` gives every number with its interval over episodes."""

    def __init__(self, episodes: int, classes: int, device: torch.device) -> None:
        self.values: dict[str, NDArray[np.float64]] = {}
        self.confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
        self.tables = torch.zeros(GROUPS, 3, calibration.BINS, dtype=torch.float64, device=device)
        self._episodes = episodes
        self._classes = classes
        self._waiting: list[Block] = []

    def add(self, episode: Tensor, logits: Tensor, labels: Tensor, classes: Tensor, seen: Tensor | None) -> None:
        """Take a block; it is scored together with those that follow, by `flush` at the latest, which checks it.

        Parameters
        ----------
        episode:
            [B] number of each episode.
        logits, labels:
            [B, Q, C] and [B, Q]; UNKNOWN marks queries of unknown classes.
        classes:
            [B, C] class of the data for each label.
        seen:
            [B, C] bool, which classes had support; None when all had.
        """
        if self._waiting and self._waiting[0][1].shape[1:] != logits.shape[1:]:
            self.flush()
        self._waiting.append((episode, logits, labels, classes, seen))
        if sum(block[1].numel() for block in self._waiting) >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Score the blocks that wait.

        Raises
        ------
        InvalidTask
            when the scores of a query are no numbers, or none of them is finite.
        """
        if self._waiting:
            episode, logits, labels, classes, seen = zip(*self._waiting, strict=True)
            known = [s for s in seen if s is not None]
            self._waiting = []
            seen_classes = torch.cat(known) if known else None
            self._score(torch.cat(episode), torch.cat(logits), torch.cat(labels), torch.cat(classes), seen_classes)

    def _score(self, episode: Tensor, logits: Tensor, labels: Tensor, classes: Tensor, seen: Tensor | None) -> None:
        # With the classes outermost in memory, sums over few classes run along the many queries: five times as fast.
        outer = logits.movedim(-1, 0).contiguous()  # [C, B, Q]
        log_p = outer.log_softmax(0).movedim(0, -1)  # [B, Q, C]
        predicted = outer.argmax(0)  # [B, Q], not of log_p, where small logits become equal by rounding
        confidence = log_p.amax(-1).exp()  # [B, Q]
        wrong = torch.isnan(confidence)  # NaN or infinity among the scores, or nothing above -infinity
        if wrong.any():
            bad = int(episode[wrong.any(1)][0])
            raise InvalidTask(f"the scores of episode {bad} hold NaN or infinity")
        counts = classification.confusion(predicted, labels, logits.shape[-1])  # [B, C, C]
        found = {
            "accuracy": classification.accuracy(counts),
            "balanced_accuracy": classification.balanced_accuracy(counts),
            "macro_f1": classification.macro_f1(counts),
            "nll": calibration.nll(log_p, labels),
            "brier": calibration.brier(log_p.exp(), labels),
        }
        if logits.shape[-1] > 5:
            found["top5"] = classification.top_k(logits, labels, 5)
        strange = labels == UNKNOWN  # [B, Q]
        if strange.any():
            found |= _open_set(confidence, predicted == labels, strange)
        if seen is not None:
            found |= _generalised(counts, logits, labels, seen)
        self._keep(episode, found)
        self._pool(episode, confidence, predicted, labels, classes)

    def _keep(self, episode: Tensor, found: dict[str, Tensor]) -> None:
        where = episode.cpu().numpy()
        for name, value in found.items():
            if name not in self.values:
                self.values[name] = np.full(self._episodes, np.nan)
            self.values[name][where] = value.double().cpu().numpy()

    def _pool(self, episode: Tensor, confidence: Tensor, predicted: Tensor, labels: Tensor, classes: Tensor) -> None:
        group = (episode % GROUPS).unsqueeze(-1).expand_as(labels)  # [B, Q]
        pair = classes.gather(1, labels.clamp_min(0)) * self._classes + classes.gather(1, predicted)  # [B, Q]
        right = predicted == labels
        flat = [t.reshape(-1) for t in (confidence, right, group, pair)]
        known = (labels >= 0).reshape(-1)
        if not known.all():
            flat = [t[known] for t in flat]
        confidence, right, group, pair = flat
        self.tables += calibration.reliability(confidence, right, group=group, groups=GROUPS)
        self.confusion.index_add_(0, pair, torch.ones_like(pair))

    def metrics(self) -> dict[str, Estimate]:
        """Return the mean of every metric over the episodes, and the pooled calibration error."""
        found = {name: mean_interval(value) for name, value in self.values.items()}
        whole = self.tables.sum(0)  # [3, bins]
        used = self.tables[self.tables[:, 0].sum(-1) > 0]  # [G, 3, bins]
        left_out = calibration.ece(whole - used).cpu().numpy() if len(used) > 1 else np.zeros(0)
        found["ece"] = jackknife(float(calibration.ece(whole)), left_out, self._episodes)
        return found

    def recalls(self) -> list[tuple[int, int]]:
        """Queries predicted right, and all queries, of each class of the data."""
        square = self.confusion.reshape(self._classes, self._classes)
        return list(zip(square.diagonal().tolist(), square.sum(1).tolist(), strict=True))

    def mistakes(self) -> list[tuple[int, int, int]]:
        """(true class, predicted class, count) of the most frequent mistakes."""
        square = self.confusion.reshape(self._classes, self._classes).clone()
        square.fill_diagonal_(0)
        count, order = square.flatten().sort(descending=True, stable=True)
        pairs = zip(order[:MISTAKES].tolist(), count[:MISTAKES].tolist(), strict=True)
        return [(place // self._classes, place % self._classes, n) for place, n in pairs if n]


def _open_set(confidence: Tensor, correct: Tensor, strange: Tensor) -> dict[str, Tensor]:
    """Unknown-class metrics; every episode of a block has as many unknown queries.  3 x [B]"""
    rows = len(strange)
    known, unknown = confidence[~strange].reshape(rows, -1), confidence[strange].reshape(rows, -1)
    right = correct[~strange].reshape(rows, -1)
    return {
        "auroc": openset.auroc(known, unknown),
        "fpr95": openset.fpr95(known, unknown),
        "oscr": openset.oscr(known, right, unknown),
    }


def _generalised(counts: Tensor, logits: Tensor, labels: Tensor, seen: Tensor) -> dict[str, Tensor]:
    unseen_recall, seen_recall, harmonic = gzsl.seen_unseen(counts, seen)
    known = labels >= 0
    area = [gzsl.ausuc(s[k], y[k], c) for s, y, c, k in zip(logits, labels, seen, known, strict=True)]
    return {"unseen": unseen_recall, "seen": seen_recall, "harmonic": harmonic, "ausuc": torch.stack(area)}
