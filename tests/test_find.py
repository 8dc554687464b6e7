"""find() against scoring every picture of an index one by one."""

import numpy as np
import pytest
import torch

from fewshot.classifier import Classifier
from fewshot.encoders import load_encoder
from fewshot.errors import FingerprintMismatch, InvalidOption, MissingInput, UnknownName
from fewshot.find import find
from fewshot.index_plan import Wanted, want
from fewshot.kept_index import open_index
from fewshot.store import Store

NAMES = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("toy", "cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory, encoder):
    random = np.random.default_rng(3)
    centres = random.normal(size=(40, encoder.dim))
    rows = centres[random.integers(40, size=3000)] + 0.5 * random.normal(size=(3000, encoder.dim))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    folder = tmp_path_factory.mktemp("find") / "index"
    with Store.create(folder, encoder="toy", fingerprint=encoder.fingerprint, dim=encoder.dim) as store:
        with store.writing() as database:
            store.append([str(i) for i in range(3000)], rows)
            files = [(f"/{i}.png", str(i), i) for i in range(2800)] + [
                ("/copy of 5.png", "5", 5)
            ]  # 2800.. have no file
            database.executemany("INSERT INTO files VALUES (?, ?, ?, 1, 1, NULL, 'ok', '')", files)
        yield store


def fitted(encoder, strategy):
    rows = torch.nn.functional.normalize(
        torch.randn(12, encoder.dim, generator=torch.Generator().manual_seed(4)), dim=1
    )
    return Classifier(strategy, encoder).fit(rows, [NAMES[i % 3] for i in range(12)])


def by_hand(store, classifier, name, top):
    """Score and probability of every picture, best first."""
    vectors = torch.from_numpy(np.array(store.embeddings()))
    column, found = classifier.classes.index(name), []
    for entry in store.entries():
        logits = classifier.head.logits(vectors[entry.row][None])[0].double()
        found.append((float(logits[column]), float(logits.softmax(0)[column]), entry.path))
    return sorted(found, key=lambda f: (-f[0], f[2]))[:top]


@pytest.mark.parametrize("strategy", ["prototypical", "ridge", "knn"])  # knn's head is not linear
@pytest.mark.parametrize("kind", ["exact", "fast", "ivf"])
def test_as_scoring_everything(store, encoder, strategy, kind):
    classifier = fitted(encoder, strategy)
    want(store, Wanted(kind))
    found = find(store, open_index(store), classifier, classes=["blue", "red"], top=25)
    assert list(found) == ["blue", "red"]
    for name, pictures in found.items():
        expected = by_hand(store, classifier, name, 25)
        assert len(pictures) == 25
        if kind == "exact":
            np.testing.assert_allclose([p.score for p in pictures], [s for s, *_ in expected], atol=1e-4)
            np.testing.assert_allclose([p.probability for p in pictures], [p for _, p, _ in expected], atol=1e-4)
        if strategy != "knn":  # whose scores are often equal
            shared = {p.path for p in pictures} & {path for *_, path in expected}
            assert len(shared) >= (24 if kind == "exact" else 23)


def test_every_class_by_default_and_no_more_than_there_are(store, encoder):
    want(store, Wanted("exact"))
    found = find(store, open_index(store), fitted(encoder, "ridge"), top=10**9)
    assert sorted(found) == sorted(NAMES)
    assert {len(pictures) for pictures in found.values()} == {2801}
    assert all("/copy of 5.png" in {p.path for p in pictures} for pictures in found.values())


def test_wrong_questions(store, encoder):
    classifier, index = fitted(encoder, "ridge"), open_index(store)
    with pytest.raises(UnknownName, match=r"unknown class 'gren'\. Did you mean 'green'"):
        find(store, index, classifier, classes=["gren"])
    with pytest.raises(InvalidOption, match="top must be 1"):
        find(store, index, classifier, top=0)
    with pytest.raises(InvalidOption, match="top must be 1 or more, got -1"):
        find(store, index, fitted(encoder, "knn"), top=-1)
    with pytest.raises(MissingInput, match="not been fitted"):
        find(store, index, Classifier("ridge", encoder))
    other = load_encoder("toy", "cpu")
    other.fingerprint = "toy-2"
    with pytest.raises(FingerprintMismatch, match="toy-2"):
        find(store, index, fitted(other, "ridge"))
