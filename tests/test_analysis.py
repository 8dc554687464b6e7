"""analyse(): the task it draws, and what it says of planted faults."""

import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestCentroid

from fewshot.analysis import analyse, draw_one
from fewshot.episodes import EpisodeSpec
from fewshot.errors import DataError
from fewshot.features import Features, make_features
from fewshot.registry import registry


def digits(per_class: int = 40, **more: object) -> Features:
    data = load_digits()
    rows = np.sort(np.concatenate([np.flatnonzero(data.target == c)[:per_class] for c in range(10)]))
    labels = [f"digit {t}" for t in data.target[rows]]
    return make_features("digits", torch.tensor(data.data[rows] - 8.0), labels, **more)


def test_predictions_are_those_of_nearest_centroids():
    features = digits()
    found = analyse(registry().strategy("prototypical")(), features, EpisodeSpec(shot=5))
    x = features.x.numpy()
    peer = NearestCentroid().fit(x[found.support], found.support_labels)
    assert (peer.predict(x[found.query]) == found.predicted).all()
    assert [found.classes[i] for i in found.query_labels] == [features.classes[i] for i in features.labels[found.query]]
    assert [found.classes[i] for i in found.support_labels] == [
        features.classes[i] for i in features.labels[found.support]
    ]
    assert found.position is not None
    assert found.position.shape == (50 + 300, 2)
    assert np.abs(found.position).max() == 1


def test_the_draw_takes_what_there_is_and_no_item_twice():
    features = digits(9)
    task = draw_one(features, EpisodeSpec(shot=8), 0)
    assert (np.bincount(task.support_labels[0]) == 4).all()  # half of 9
    assert (np.bincount(task.query_labels[0]) == 5).all()
    assert len({*task.support[0], *task.query[0]}) == 90
    assert draw_one(features, EpisodeSpec(shot=8), 0).checksum() == task.checksum()
    assert draw_one(features, EpisodeSpec(shot=8), 1).checksum() != task.checksum()
    none = draw_one(features, EpisodeSpec(shot=0), 0)
    assert none.support.shape == (1, 0)


def test_splits_are_kept_apart():
    features = digits(12, splits=["a", "b", "b"] * 40)
    task = draw_one(features, EpisodeSpec(shot=1, split="a>b", source="a"), 0)
    assert (task.spec.split, task.spec.source) == ("a>b", "a")
    assert {features.splits[i] for i in task.support[0]} == {"a"}
    assert {features.splits[i] for i in task.query[0]} == {"b"}
    with pytest.raises(DataError, match="fewer than two classes"):
        draw_one(features, EpisodeSpec(shot=1, split="c"), 0)


@pytest.mark.parametrize("victim", [11, 60, 105])
def test_among_clear_classes_a_wrong_label_misleads_most(victim, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)  # the map takes long
    generator = torch.Generator().manual_seed(0)
    x = torch.eye(6, 12).repeat_interleave(20, 0) + 0.15 * torch.randn(120, 12, generator=generator)
    labels = np.repeat(np.arange(6), 20)
    labels[victim] = (labels[victim] + 2) % 6
    features = make_features("clear", x, [f"c{label}" for label in labels])
    spec = EpisodeSpec(shot=5)
    seed = next(seed for seed in range(99) if victim in draw_one(features, spec, seed).support)
    found = analyse(registry().strategy("prototypical")(), features, spec, seed=seed)
    assert found.support[np.nanargmax(found.harm)] == victim
    assert {found.pairs[0].first, found.pairs[0].second} & {victim}  # its true class is full of look-alikes


def test_without_scikit_learn_there_is_no_map(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    assert analyse(registry().strategy("prototypical")(), digits(4), EpisodeSpec(shot=1)).position is None
