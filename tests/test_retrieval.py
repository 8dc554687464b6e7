"""Retrieval among labelled embeddings against scikit-learn and by hand, and its command."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.metrics import average_precision_score

from fewshot import retrieval as module
from fewshot.cli import cli
from fewshot.errors import DataError
from fewshot.features import make_features
from fewshot.retrieval import retrieval


@pytest.fixture
def features():
    x = torch.randn(41, 6, generator=torch.Generator().manual_seed(0))
    labels = [f"c{i % 4}" for i in range(40)] + ["alone"]
    return make_features("noise", x, labels, splits=["a"] * 30 + ["b"] * 11)


def test_every_item_searches_all_others(features, monkeypatch):
    monkeypatch.setattr(module, "SCORES", 41 * 7)  # several blocks
    x, y = features.x.double().numpy(), features.labels
    first, precision = [], []
    for i in np.flatnonzero(y != y[40]):
        others = np.arange(41) != i
        scores, same = (x @ x[i])[others], (y == y[i])[others]
        first.append(same[scores.argmax()])
        precision.append(average_precision_score(same, scores))
    found = retrieval(features)
    assert (found.items, found.queries, found.classes) == (41, 40, 5)
    assert found.metrics["recall@1"].mean == pytest.approx(np.mean(first))
    assert found.metrics["map"].mean == pytest.approx(np.mean(precision))
    assert found.metrics["map"].n == 40
    assert found.metrics["recall@1"].mean <= found.metrics["recall@5"].mean <= found.metrics["recall@10"].mean


def test_a_split_is_searched_alone(features):
    assert retrieval(features, split="a").items == 30
    with pytest.raises(DataError, match="no class with two items in split 'c'"):
        retrieval(features, split="c")


def test_the_command_gives_a_row_an_encoder(tmp_path):
    words = ["bench", "retrieval", "--dataset", "digits", "--encoder", "toy", "--cache", str(tmp_path)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "recall@1" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    done = CliRunner().invoke(cli, [*words, "--dataset", "spheres", "--json"])
    digits, spheres = json.loads(done.stdout)
    assert (digits["items"], digits["encoder"], spheres["encoder"]) == (1797, "toy", "synthetic")
    assert 0.1 < digits["metrics"]["map"]["mean"] < digits["metrics"]["recall@10"]["mean"] < 1
