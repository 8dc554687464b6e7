"""The demo's digits: embedded once, then classified from examples and from attributes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewshot.classifier import Classifier
from fewshot.datasets.digits import NAMES, Digits
from fewshot.embedding import embed_images
from fewshot.encoders import Encoder
from fewshot_plugins.demo.material import digit_attributes

SHOTS = 5
QUERIES = 40  # a digit
UNSEEN = ("zero", "three", "nine")  # classes the attribute classifier gets no picture of


@dataclass(frozen=True, slots=True)
class Score:
    """How many of `total` answers were right; 95 % half width after Wilson (1927) is asymmetric, so both ends."""

    right: int
    total: int

    def __str__(self) -> str:
        low, high = wilson(self.right, self.total)
        return (
            f"{self.right}/{self.total} right = {self.right / self.total:.1%} (95 % interval {low:.1%} to {high:.1%})"
        )


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion."""
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / total + spread / (4 * total)) ** 0.5
    return middle - half, middle + half


@dataclass(frozen=True, slots=True)
class DigitData:
    """Embedded digits: SHOTS examples and QUERIES queries of each, drawn with a fixed seed."""

    support: Tensor  # [10 * SHOTS, D]
    support_labels: list[str]
    query: Tensor  # [10 * QUERIES, D]
    query_labels: list[str]


def embed_digits(encoder: Encoder, seed: int = 0) -> DigitData:
    """Draw and embed the digits."""
    items = Digits().load()
    labels = np.array(items.labels)
    drawn = np.random.default_rng(seed).permutation(len(labels))
    support = [i for name in NAMES for i in drawn[labels[drawn] == name][:SHOTS]]
    query = [i for name in NAMES for i in drawn[labels[drawn] == name][SHOTS : SHOTS + QUERIES]]
    done = embed_images(encoder, [items.sources[i] for i in support + query], progress=True)
    return DigitData(
        done.embeddings[: len(support)],
        [items.labels[i] for i in support],
        done.embeddings[len(support) :],
        [items.labels[i] for i in query],
    )


def from_examples(encoder: Encoder, data: DigitData) -> tuple[str, Score]:
    """Classify the queries from SHOTS examples a digit; returns the strategy's name and the score."""
    classifier = Classifier(encoder=encoder).fit(data.support, data.support_labels)
    assert classifier.strategy is not None
    return classifier.strategy.name, _score(classifier, data.query, data.query_labels)


def from_attributes(encoder: Encoder, data: DigitData) -> dict[str, Score]:
    """Classify digits of which no picture was seen, among themselves, by each attribute strategy."""
    seen = [i for i, label in enumerate(data.support_labels) if label not in UNSEEN]
    extra = [i for i, label in enumerate(data.query_labels) if label not in UNSEEN]  # more examples of seen digits
    support = torch.cat([data.support[seen], data.query[extra]])
    labels = [data.support_labels[i] for i in seen] + [data.query_labels[i] for i in extra]
    wanted = [i for i, label in enumerate(data.query_labels) if label in UNSEEN]
    scores = {}
    for name in ("eszsl", "dap"):
        classifier = Classifier(name, encoder).fit(support, labels, attributes=digit_attributes())
        logits = classifier.logits(data.query[wanted])  # [q, 10]
        columns = [classifier.classes.index(name) for name in UNSEEN]
        answers = [UNSEEN[i] for i in logits[:, columns].argmax(-1).tolist()]
        right = sum(answer == data.query_labels[i] for answer, i in zip(answers, wanted, strict=True))
        scores[name] = Score(right, len(wanted))
    return scores


def _score(classifier: Classifier, query: Tensor, truth: list[str]) -> Score:
    found = classifier.predict(query, top=1)
    right = sum(guess.label == label for guess, label in zip(found, truth, strict=True))
    return Score(right, len(truth))
