"""Data sets that come as embeddings: npz and spheres."""

import numpy as np
import pytest

from fewshot.datasets import spheres
from fewshot.datasets.npz import Npz, read_npz
from fewshot.errors import DataError


def test_spheres_have_the_bayes_accuracy_that_is_claimed():
    items = spheres.Spheres().load()
    assert items.features is not None
    truth = np.array([int(label[5:]) for label in items.labels])
    scores = items.features @ spheres.centres().T  # the best classifier knows the centres
    assert np.linalg.norm(items.features, axis=1) == pytest.approx(1, abs=1e-5)
    right = (scores.argmax(1) == truth).mean()
    assert right == pytest.approx(spheres.bayes_accuracy(spheres.CLASSES), abs=4 * (0.25 / len(truth)) ** 0.5)
    pair = truth < 2
    right = (scores[pair, :2].argmax(1) == truth[pair]).mean()
    assert right == pytest.approx(spheres.bayes_accuracy(2), abs=4 * (0.25 / pair.sum()) ** 0.5)


def test_bayes_accuracy_of_two_classes_has_a_closed_form():
    from scipy.stats import norm

    assert spheres.bayes_accuracy(2) == pytest.approx(norm.cdf(spheres.DISTANCE / 2**0.5), abs=1e-9)
    assert spheres.bayes_accuracy(1) == pytest.approx(1, abs=1e-9)


def test_npz_is_read_with_splits_and_text(tmp_path):
    x, text = np.eye(4), np.arange(12.0).reshape(3, 4)
    file = tmp_path / "f.npz"
    np.savez(file, x=x, labels=["b", "a", "b", "a"], split=["s", "s", "t", "t"], text=text, classes=["b", "c", "a"])
    items = Npz().load(file)
    assert items.labels == ("b", "a", "b", "a")
    assert items.splits == ("s", "s", "t", "t")
    assert items.text is not None
    assert items.text[:, 0].tolist() == text[[2, 0]].tolist()  # in the order of the sorted labels
    np.testing.assert_array_equal(items.features, x)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": np.eye(2)}, "lacks the array 'labels'"),
        ({"x": np.eye(2), "labels": ["a"]}, "wants x"),
        ({"x": np.eye(2, dtype=int), "labels": ["a", "b"]}, r"wants x .* of floats"),
        ({"x": np.eye(2), "labels": ["a", "b"], "split": ["s"]}, "split has 1 entries for 2 rows"),
        ({"x": np.eye(2), "labels": ["a", "b"], "text": np.eye(3)}, "does not fit 2 classes"),
        ({"x": np.eye(2), "labels": ["a", "b"], "text": np.eye(2), "classes": ["a", "c"]}, "'b' is not among"),
        ({"x": np.eye(2), "labels": np.array([{}, []], dtype=object)}, "no .npz file of plain arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, arrays, text):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(DataError, match=text):
        read_npz(tmp_path / "f.npz")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "f.npz").write_text("hello")
    with pytest.raises(DataError, match=r"no .npz file"):
        read_npz(tmp_path / "f.npz")
    with pytest.raises(DataError, match="needs a path"):
        Npz().load()
