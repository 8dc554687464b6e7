"""Task: everything a strategy may see of one problem, or of a batch of problems."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from fewshot.errors import InvalidTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A set of classes, each with some or no examples, phrases and attributes.

    Zero-shot, few-shot and generalised zero-shot problems are all of this type. Letters: `*B` leading batch dims
    (none for one task, `E` for E episodes), `S` support, `U` unlabelled, `N` source items, `C` classes, `P` phrases,
    `A` attributes, `D` embedding size. What is absent is a dim of size 0, never None. A query's label is in no field,
    so no strategy can see it. Build one with `make_task`, which fills in what is absent and checks the rest.
    """

    support: Tensor  # [*B, S, D] unit-norm floats
    labels: Tensor  # [*B, S] int64 in [0, C); -1 marks padding, so tasks with unequal shots still batch
    text: Tensor  # [*B, C, P, D] one unit-norm embedding per phrase (prompt templates, descriptions)
    text_weight: Tensor  # [*B, C, P] weight of each phrase, 0 for padding
    attributes: Tensor  # [*B, C, A] class signatures; attributes and no support make an unseen class
    unlabeled: Tensor  # [*B, U, D] unlabelled items a transductive strategy may use
    source: Tensor  # [*B, N, D] labelled examples of another domain, for transfer strategies
    source_labels: (
        Tensor  # [*B, N] int64: below C the class here of that number, from C on a class of the source alone; -1
    )

    @property
    def batch_shape(self) -> torch.Size:
        """`*B`."""
        return self.support.shape[:-2]

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return self.text.shape[-3]

    @property
    def dim(self) -> int:
        """D, the embedding size."""
        return self.support.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the embeddings, which heads keep."""
        return self.support.dtype

    @property
    def device(self) -> torch.device:
        """Device of every tensor of the task."""
        return self.support.device

    def one_hot(self) -> Tensor:
        """Return the labels as rows of zeros and ones, all zero for padding.  [*B, S, C]"""
        return one_hot(self.labels, self.classes, self.dtype)

    def counts(self) -> Tensor:
        """Number of examples of each class, as floats.  [*B, C]"""
        return self.one_hot().sum(-2)  # [*B, C]

    def seen(self) -> Tensor:
        """Which classes have at least one example.  [*B, C] bool"""
        return self.counts() > 0

    def to(self, *args: torch.device | torch.dtype | str) -> Task:
        """Return the task on another device or with embeddings of another dtype (labels stay int64)."""
        moved = {f.name: getattr(self, f.name).to(*args) for f in fields(self)}
        for name in ("labels", "source_labels"):
            moved[name] = moved[name].to(torch.int64)
        return Task(**moved)

    def __getitem__(self, index: int) -> Task:
        """One task of a batch, along the first batch dim."""
        if not self.batch_shape:
            raise InvalidTask("this task has no batch dims to take one from")
        return Task(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows of zeros and ones for labels in [0, classes), all zero where the label is -1.  [..., S] -> [..., S, C]"""
    return (labels.unsqueeze(-1) == torch.arange(classes, device=labels.device)).to(dtype)


def make_task(
    support: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    text: Tensor | None = None,
    text_weight: Tensor | None = None,
    attributes: Tensor | None = None,
    unlabeled: Tensor | None = None,
    source: Tensor | None = None,
    source_labels: Tensor | None = None,
    classes: int | None = None,
) -> Task:
    """Build a checked Task from the tensors there are.

    Parameters are the fields of `Task`, in its shapes; a `text` of one dim less counts as one phrase a class
    (without a support, that is a text of shape [C, D]).
    `classes` is needed only when neither `text` nor `attributes` gives C and the last classes may have no example.

    Raises
    ------
    InvalidTask
        when shapes disagree, labels are out of range, or a value is not finite (the first bad row is named).
    """
    if (support is None) != (labels is None):
        raise InvalidTask("support and labels go together: one label for each support embedding")
    if source is not None and source_labels is None:
        raise InvalidTask("source needs source_labels: one label for each source embedding")
    embeddings = {"support": support, "text": text, "unlabeled": unlabeled, "source": source}
    like = next((t for t in embeddings.values() if t is not None), None)
    if like is None:
        raise InvalidTask("a task needs at least one of support, text, unlabeled or source")
    if text is not None and (text.ndim == 2 or (support is not None and text.ndim == support.ndim)):
        text = text.unsqueeze(-2)  # [*B, C, 1, D]
    batch = text.shape[:-3] if text is not None and support is None else like.shape[:-2]
    dim = like.shape[-1]
    if classes is None:
        classes = _count_classes(labels, text, attributes)

    def empty(*shape: int) -> Tensor:
        return like.new_zeros(*batch, *shape)

    no_labels = torch.zeros(*batch, 0, dtype=torch.int64, device=like.device)
    text = empty(classes, 0, dim) if text is None else text
    task = Task(
        support=empty(0, dim) if support is None else support,
        labels=no_labels if labels is None else labels,
        text=text,
        text_weight=text.new_ones(text.shape[:-1]) if text_weight is None else text_weight,
        attributes=empty(classes, 0) if attributes is None else attributes,
        unlabeled=empty(0, dim) if unlabeled is None else unlabeled,
        source=empty(0, dim) if source is None else source,
        source_labels=no_labels if source_labels is None else source_labels,
    )
    check_task(task)
    return task


def _count_classes(labels: Tensor | None, text: Tensor | None, attributes: Tensor | None) -> int:
    if text is not None:
        return text.shape[-3]
    if attributes is not None:
        return attributes.shape[-2]
    return int(labels.max()) + 1 if labels is not None and labels.numel() else 0


def check_task(task: Task) -> None:
    """Refuse a task whose tensors do not fit each other or hold NaN or infinity.

    Raises
    ------
    InvalidTask
        naming the field, what it has and what is wanted.
    """
    batch, classes, dim = tuple(task.batch_shape), task.classes, task.dim
    phrases, attributes = task.text.shape[-2], task.attributes.shape[-1]
    wanted = {
        "support": (*batch, task.support.shape[-2], dim),
        "labels": (*batch, task.support.shape[-2]),
        "text": (*batch, classes, phrases, dim),
        "text_weight": (*batch, classes, phrases),
        "attributes": (*batch, classes, attributes),
        "unlabeled": (*batch, task.unlabeled.shape[-2], dim),
        "source": (*batch, task.source.shape[-2], dim),
        "source_labels": (*batch, task.source.shape[-2]),
    }
    for name, shape in wanted.items():
        tensor: Tensor = getattr(task, name)
        if tuple(tensor.shape) != shape:
            raise InvalidTask(f"{name} has shape {list(tensor.shape)}, but the rest of the task wants {list(shape)}")
        if tensor.is_floating_point() and not _finite(tensor):
            row = (~torch.isfinite(tensor)).nonzero()[0, : max(1, tensor.ndim - 1)].tolist()
            raise InvalidTask(f"{name} holds a value that is not finite (NaN or infinity), first in row {row}")
    if task.labels.dtype != torch.int64:
        raise InvalidTask(f"labels must be int64, got {task.labels.dtype}")
    if task.labels.numel() and not (int(task.labels.min()) >= -1 and int(task.labels.max()) < classes):
        raise InvalidTask(
            f"labels must lie in [0, {classes}) or be -1 for padding, got {int(task.labels.min())} "
            f"to {int(task.labels.max())}"
        )


def _finite(x: Tensor) -> bool:
    """Whether every value is finite: from the sum, twenty times cheaper, unless that overflows."""
    return bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())


def without(task: Task, *names: str) -> Task:
    """Return the task with the named fields made absent, e.g. `without(task, "text")`."""
    blank: dict[str, Tensor] = {}
    for name in names:
        if name == "text":
            blank |= {"text": task.text[..., :0, :], "text_weight": task.text_weight[..., :0]}
        elif name == "attributes":
            blank["attributes"] = task.attributes[..., :0]
        elif name in ("support", "source"):
            key = "labels" if name == "support" else "source_labels"
            blank |= {name: getattr(task, name)[..., :0, :], key: getattr(task, key)[..., :0]}
        else:
            blank["unlabeled"] = task.unlabeled[..., :0, :]
    return replace(task, **blank)
