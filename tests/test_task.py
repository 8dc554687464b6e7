"""Task: shapes, absence, checks."""

import pytest
import torch

from fewshot.errors import InvalidTask, MissingInput
from fewshot.registry import registry
from fewshot.strategy import LinearHead, StackedHead, Strategy, fit
from fewshot.task import Task, make_task, without


def example(*batch: int) -> Task:
    torch.manual_seed(0)
    support = torch.nn.functional.normalize(torch.randn(*batch, 6, 4), dim=-1)
    labels = torch.tensor([0, 0, 1, 1, 2, -1]).expand(*batch, 6)
    return make_task(support, labels, text=torch.eye(4)[:3].expand(*batch, 3, 4))


def test_absent_fields_have_size_zero() -> None:
    task = example(5)
    assert task.unlabeled.shape == (5, 0, 4)
    assert task.attributes.shape == (5, 3, 0)
    assert task.source.shape == (5, 0, 4)
    assert task.source_labels.shape == (5, 0)
    assert (task.classes, task.dim, tuple(task.batch_shape)) == (3, 4, (5,))


def test_padding_counts_nowhere() -> None:
    task = example()
    assert task.one_hot().sum(-1).tolist() == [1, 1, 1, 1, 1, 0]
    assert task.counts().tolist() == [2, 2, 1]
    assert task.seen().all()


def test_text_of_one_phrase_gets_its_dim() -> None:
    assert example().text.shape == (3, 1, 4)
    assert example().text_weight.shape == (3, 1)


def test_text_alone_makes_a_task() -> None:
    task = make_task(text=torch.randn(2, 3, 1, 8), text_weight=torch.ones(2, 3, 1))
    assert task.support.shape == (2, 0, 8)
    assert task.classes == 3
    assert make_task(text=torch.randn(3, 8)).text.shape == (3, 1, 8)


def test_indexing_takes_one_task() -> None:
    assert torch.equal(example(5)[2].support, example(5).support[2])
    with pytest.raises(InvalidTask, match="no batch dims"):
        example()[0]


def test_to_keeps_labels_whole_numbers() -> None:
    task = example().to(torch.float64)
    assert task.dtype == torch.float64
    assert task.labels.dtype == torch.int64


def test_without_takes_fields_out() -> None:
    task = without(example(), "text", "support")
    assert task.text.shape == (3, 0, 4)
    assert task.labels.shape == (0,)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": torch.tensor([0, 1])}, r"labels has shape \[2\]"),
        ({"labels": torch.tensor([0, 1, 3])}, r"labels must lie in \[0, 2\)"),
        ({"labels": torch.tensor([0.0, 1, 1])}, "labels must be int64"),
        ({"labels": None}, "go together"),
        ({"text": torch.zeros(2, 1, 5)}, r"text has shape \[2, 1, 5\]"),
        ({"source": torch.zeros(1, 4)}, "source needs source_labels"),
        ({"unlabeled": torch.full((3, 4), torch.nan)}, r"unlabeled holds a value that is not finite .* in row \[0\]"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, torch.Tensor], text: str) -> None:
    parts = {"support": torch.eye(4)[:3], "labels": torch.tensor([0, 1, 1]), "classes": 2}
    with pytest.raises(InvalidTask, match=text):
        make_task(**{**parts, **change})  # type: ignore[arg-type]


def test_bad_row_is_named() -> None:
    support = torch.eye(4)
    support[2, 1] = torch.inf
    with pytest.raises(InvalidTask, match=r"support .* in row \[2\]"):
        make_task(support, torch.tensor([0, 0, 1, 1]))


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(InvalidTask, match="at least one of"):
        make_task()


class OneByOne(Strategy):
    """A strategy that cannot batch."""

    name = "one_by_one"
    batched = False

    def fit(self, task: Task) -> LinearHead:
        assert task.support.ndim == 2
        return LinearHead(task.one_hot().mT @ task.support)


def test_engine_loops_over_what_cannot_batch() -> None:
    task = example(2, 3)
    head = fit(OneByOne(), task)
    assert isinstance(head, StackedHead)
    logits = head.logits(task.support)  # [2, 3, 6, 3]
    expected = task.support @ (task.one_hot().mT @ task.support).mT
    assert torch.allclose(logits, expected, atol=1e-6)


def test_needs_are_checked_before_fit() -> None:
    prototypical = registry().strategy("prototypical")()
    with pytest.raises(MissingInput, match="--support"):
        fit(prototypical, without(example(), "support"))
    with pytest.raises(MissingInput, match="class number 2 has none"):
        fit(prototypical, make_task(torch.eye(4)[:2], torch.tensor([0, 1]), classes=3))
    with pytest.raises(MissingInput, match="at least 2 classes"):
        fit(prototypical, make_task(torch.eye(4)[:2], torch.tensor([0, 0])))
