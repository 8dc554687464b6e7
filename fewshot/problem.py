"""From a user's examples, phrases and attributes to a Task with named classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewshot.arrays import to_tensor, unit
from fewshot.attributes import AttributeTable, read_attributes
from fewshot.classes import ClassList, class_list, spoken
from fewshot.database import is_store
from fewshot.datasets import Items, read_items
from fewshot.datasets.index import read_index
from fewshot.embedding import Skipped
from fewshot.encoders import Encoder
from fewshot.encoding import encode_texts
from fewshot.errors import DataError, MissingInput
from fewshot.inputs import Embedded, Inputs, embed_inputs, is_single
from fewshot.store import Store
from fewshot.strategy import NEEDS, Strategy
from fewshot.task import Task, make_task

Labelled = str | Path | Items | Inputs
Classes = str | Path | Sequence[str] | Mapping[str, str | Sequence[str]] | ClassList
SHOWN = 8  # class names in an error
MISSING = "None", "nan", "NaT", "<NA>"  # how what pandas has in place of a value is printed


@dataclass(frozen=True, slots=True)
class Problem:
    """A Task, what its classes and support items are called, and which inputs were skipped."""

    task: Task
    classes: tuple[str, ...]
    support: tuple[str, ...]
    skipped: tuple[Skipped, ...]

    def check(self, strategy: Strategy) -> None:
        """Refuse a strategy that needs examples of every class when some class has none, by the class's name."""
        if strategy.unseen or "support" not in strategy.needs or not self.support:
            return
        empty = [name for name, seen in zip(self.classes, self.task.seen().tolist(), strict=True) if not seen]
        if empty:
            raise MissingInput(
                f"class {empty[0]!r} has no example and strategy {strategy.name!r} needs one of every class; "
                "add a picture, or use a strategy for unseen classes (auto with --classes, eszsl with --attributes)"
            )


def embed_labelled(
    encoder: Encoder, items: Labelled, labels: Sequence[str] | None, progress: bool
) -> tuple[Embedded, list[str]]:
    """Embed examples and return the label of each row.

    Raises
    ------
    DataError
        when labels and examples differ in number, one is missing, or every picture of a class is unreadable.
    """
    if isinstance(items, str | Path) and labels is None:
        if is_store(Path(items)):
            return _labelled_index(encoder, Path(items))
        items = read_items(Path(items))
    if isinstance(items, Items):
        labels = items.labels
        items = items.sources
    if labels is None:
        raise DataError("examples that are not a folder or table need labels: one for each of them")
    labels = list(labels)  # by position: a column of a table may have an index of its own
    embedded = embed_inputs(encoder, items, progress=progress)
    total = len(items) if isinstance(items, Sized) and not is_single(items) else len(embedded.names)
    if len(labels) != total:
        raise DataError(f"{len(labels)} labels for {total} examples; give one label for each")
    for i, label in enumerate(labels):
        if str(label).strip() in ("", *(() if isinstance(label, str) else MISSING)):
            raise DataError(f"example {i} has no label, got {label!r}; label it or leave it out")
    kept = [str(labels[i]) for i in embedded.positions]
    lost = sorted(set(map(str, labels)) - set(kept))
    if lost:
        reason = embedded.skipped[0].reason if embedded.skipped else "none was found"
        raise DataError(f"no picture of class {lost[0]!r} could be read ({reason}); add one or remove the class")
    return embedded, kept


def _labelled_index(encoder: Encoder, path: Path) -> tuple[Embedded, list[str]]:
    """The embeddings and labels of an index of this encoder."""
    with Store.open(path) as store:
        store.check_encoder(encoder)
    items = read_index(path)
    names = tuple(map(str, items.sources))
    return Embedded(names, to_tensor(np.asarray(items.features)), tuple(range(len(names)))), list(items.labels)


def embed_phrases(encoder: Encoder, phrases: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Embed each distinct phrase once.  C lists of phrases -> text [C, P, D], weight [C, P] with 0 for padding."""
    distinct = list(dict.fromkeys(phrase for group in phrases for phrase in group))
    vectors = dict(zip(distinct, encode_texts(encoder, distinct), strict=True))
    most = max(len(group) for group in phrases)
    text = torch.zeros(len(phrases), most, encoder.dim)  # [C, P, D]
    weight = torch.zeros(len(phrases), most)  # [C, P]
    for row, group in enumerate(phrases):
        text[row, : len(group)] = unit(torch.stack([vectors[phrase] for phrase in group]))
        weight[row, : len(group)] = 1
    return text, weight


def build_problem(
    encoder: Encoder,
    support: Labelled | None = None,
    labels: Sequence[str] | None = None,
    *,
    classes: Classes | None = None,
    templates: Sequence[str] | None = None,
    attributes: str | Path | AttributeTable | None = None,
    unlabeled: Inputs | None = None,
    source: Labelled | None = None,
    source_labels: Sequence[str] | None = None,
    strategy: Strategy | None = None,
    progress: bool = False,
) -> Problem:
    """Embed everything the user gave and put it into one Task.

    The classes are those of `classes` in their order; without it, those of `attributes`; without both, the labels of
    `support`, sorted; without all three, those of `source`. `support` and `source` may be a folder of class folders, a
    table, an index, `Items`, or pictures/embeddings with their `labels`. A `strategy` that writes its own phrases is
    asked for them.

    Raises
    ------
    DataError
        for unreadable input, a support label that is no class, or nothing to go by.
    """
    if support is None and classes is None and attributes is None and source is None:
        raise MissingInput(
            "nothing to go by: give examples (--support), class names (--classes), --attributes or a --source"
        )
    if support is None and classes is None and attributes is None and strategy is None:
        raise MissingInput("a source alone leaves open how to transfer from it: pass a strategy, e.g. -s coral")
    if strategy:
        held = {"support": support, "text": classes, "attributes": attributes, "unlabeled": unlabeled, "source": source}
        _check_given(strategy, held)
    table = read_attributes(Path(attributes)) if isinstance(attributes, str | Path) else attributes
    listed = class_list(classes) if classes is not None else None
    examples, names = (None, []) if support is None else embed_labelled(encoder, support, labels, progress)
    far, far_names = (None, []) if source is None else embed_labelled(encoder, source, source_labels, progress)
    shown = far_names if support is None else names
    order = listed.names if listed else table.classes if table else tuple(sorted(set(shown)))
    stray = [name for name, _ in Counter(names).most_common() if name not in order]
    if stray:
        which = "the classes given" if listed else "the classes of the attributes table"
        raise DataError(
            f"examples are labelled {_some(map(repr, stray))}, which {'is' if len(stray) == 1 else 'are'} not among "
            f"{which}: {_some(order)}; name every class that has examples, or leave those examples out"
        )
    if len(order) < 2:
        raise DataError(f"one class only, {order[0]!r}; a classifier needs at least two")
    text, weight = (None, None)
    if listed:
        own = strategy.phrases([spoken(name) for name in listed.names]) if strategy else None
        text, weight = embed_phrases(encoder, own or listed.prompts(templates, encoder.templates))
    others = embed_inputs(encoder, unlabeled, progress=progress) if unlabeled is not None else None
    far_order = [*order, *sorted(set(far_names) - set(order))]
    blank = torch.zeros(0, encoder.dim)
    task = make_task(
        examples.embeddings if examples else blank,
        torch.tensor([order.index(name) for name in names], dtype=torch.int64),
        text=text,
        text_weight=weight,
        attributes=table.rows(order) if table else None,
        unlabeled=others.embeddings if others else None,
        source=far.embeddings if far else None,
        source_labels=torch.tensor([far_order.index(name) for name in far_names]) if far else None,
        classes=len(order),
    )
    skipped = tuple(skip for part in (examples, others, far) if part for skip in part.skipped)
    return Problem(task, order, examples.names if examples else (), skipped)


def _some(names: Iterable[str]) -> str:
    first, *rest = names
    return ", ".join([first, *rest[: SHOWN - 1]]) + (", ..." if len(rest) >= SHOWN else "")


def _check_given(strategy: Strategy, held: Mapping[str, object]) -> None:
    """Refuse a strategy that lacks an input before anything is embedded, which may take minutes."""
    for need in sorted(strategy.needs):
        if held[need] is None:
            raise MissingInput(f"strategy {strategy.name!r} needs {NEEDS[need]}")


def default_strategy(task: Task) -> str:
    """Name the strategy for what the task holds: attributes, examples with phrases, examples, or phrases."""
    if task.attributes.shape[-1] and bool((task.labels >= 0).any()):
        return "eszsl"
    if task.support.shape[-2]:
        return "auto" if task.text.shape[-2] else "linear_probe"
    if task.text.shape[-2]:
        return "zero_shot"
    raise MissingInput(f"attributes alone say nothing about pictures; add {NEEDS['support']}")
