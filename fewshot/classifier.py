"""Classifier: encoder + strategy + head for one user; fit, predict, save, load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from fewshot import __version__
from fewshot.attributes import AttributeTable
from fewshot.blame import blamed
from fewshot.calibrate import fit_calibrated
from fewshot.classes import ClassList, class_list, spoken
from fewshot.compose import make_strategy
from fewshot.embedding import Skipped
from fewshot.encoders import Encoder, load_encoder
from fewshot.errors import FingerprintMismatch, FormatError, MissingInput, PluginError
from fewshot.headfile import head_from_tensors, head_to_tensors
from fewshot.inputs import Embedded, Inputs, embed_inputs
from fewshot.modelfile import read_model, write_model
from fewshot.options import build, to_json
from fewshot.problem import Classes, Labelled, Problem, build_problem, default_strategy
from fewshot.registry import registry
from fewshot.strategy import Head, Strategy, fit

CHUNK = 4096  # queries scored at once, which bounds memory


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one picture."""

    path: str  # or "picture 3", "row 3" for inputs without a path
    label: str
    probability: float  # softmax over the classes, in [0, 1]
    top: tuple[tuple[str, float], ...]  # the likeliest labels with their probabilities, best first
    nearest: str | None = None  # the support item most like it, while the classifier still has its support

    def to_json(self) -> dict[str, Any]:
        """Return what `fewshot classify --json` prints."""
        top = [{"label": label, "probability": round(p, 6)} for label, p in self.top]
        return {"path": self.path, "label": self.label, "probability": round(self.probability, 6), "top": top}


class Classifier:
    """A classifier of pictures.

    Parameters
    ----------
    strategy
        name of a strategy, a Strategy, or None for the one that suits what `fit` is given.
    encoder
        name of an encoder, e.g. "lite" or "clip:ViT-B-32/openai", or an Encoder.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    options
        options of the strategy, when it is given by name.
    calibrate
        scale probabilities by what examples left out in turn say; needs two examples of some class, and refits 6 times.
    progress
        show a progress bar on stderr while pictures are embedded.

    Examples
    --------
    >>> classifier = Classifier().fit("support/")  # doctest: +SKIP
    >>> classifier.predict("new_picture.jpg")[0].label  # doctest: +SKIP
    >>> classifier.save("products.fewshot")  # doctest: +SKIP
    """

    def __init__(
        self,
        strategy: str | Strategy | None = None,
        encoder: str | Encoder = "lite",
        *,
        device: str = "auto",
        options: Mapping[str, object] | None = None,
        calibrate: bool = False,
        progress: bool = False,
    ) -> None:
        self.encoder = load_encoder(encoder, device) if isinstance(encoder, str) else encoder
        self._asked = make_strategy(strategy, options or {}) if isinstance(strategy, str) else strategy
        self._options = dict(options or {})
        self.calibrate = calibrate
        self.progress = progress
        self.strategy: Strategy | None = self._asked
        self.classes: tuple[str, ...] = ()
        self.head: Head | None = None
        self.skipped: tuple[Skipped, ...] = ()  # pictures that `fit` could not read
        self._support: Embedded | None = None

    def fit(
        self,
        support: Labelled | None = None,
        labels: Sequence[str] | None = None,
        *,
        classes: Classes | None = None,
        templates: Sequence[str] | None = None,
        attributes: str | Path | AttributeTable | None = None,
        unlabeled: Inputs | None = None,
        source: Labelled | None = None,
        source_labels: Sequence[str] | None = None,
    ) -> Self:
        """Learn from examples, class names or phrases, attributes, or several of these; see `build_problem`.

        Raises
        ------
        FewshotError
            when the inputs cannot be used, or are not what the strategy needs.
        """
        problem = build_problem(
            self.encoder,
            support,
            labels,
            classes=self._described(classes) if classes is not None else None,
            templates=templates,
            attributes=attributes,
            unlabeled=unlabeled,
            source=source,
            source_labels=source_labels,
            strategy=self._asked,
            progress=self.progress,
        )
        return self.fit_problem(problem)

    def _described(self, classes: Classes) -> ClassList:
        """Read the classes; a strategy that writes phrases of its own has the last word on them."""
        listed = class_list(classes)
        own = self._asked.phrases([spoken(name) for name in listed.names]) if self._asked else None
        return listed if own is None else ClassList(listed.names, tuple(map(tuple, own)))

    def fit_problem(self, problem: Problem) -> Self:
        """Learn from a problem that is embedded already."""
        self.strategy = self._asked or make_strategy(default_strategy(problem.task), self._options)
        problem.check(self.strategy)
        device = self.encoder.device
        with blamed(self.strategy):
            self.head = (fit_calibrated if self.calibrate else fit)(self.strategy, problem.task.to(device))
        self.classes, self.skipped = problem.classes, problem.skipped
        self._support = Embedded(problem.support, problem.task.support, ())
        scores = self._score_one()
        if scores.shape != (1, len(self.classes)):
            raise PluginError(
                f"strategy {self.strategy.name!r} scores one picture of {len(self.classes)} classes by "
                f"{list(scores.shape)} numbers, not [1, {len(self.classes)}]; its head is wrong"
            )
        self._check_numbers(scores)
        return self

    def logits(self, embeddings: Tensor) -> Tensor:
        """Score embeddings of this classifier's encoder.  [n, D] -> [n, C] on the CPU"""
        if self.head is None or self.strategy is None:
            raise MissingInput("this classifier has not been fitted yet; call fit() first")
        head, device = self.head, self.encoder.device
        starts = range(0, max(len(embeddings), 1), CHUNK)
        with blamed(self.strategy):
            return torch.cat([head.logits(embeddings[start : start + CHUNK].to(device)).cpu() for start in starts])

    def _score_one(self) -> Tensor:
        """Score one made-up embedding, to find a head that cannot score before any picture is embedded.  -> [1, C]"""
        return self.logits(torch.full((1, self.encoder.dim), self.encoder.dim**-0.5))

    def _check_numbers(self, scores: Tensor) -> None:
        if self.strategy is not None and scores.isnan().any():
            raise PluginError(
                f"strategy {self.strategy.name!r} gives NaN for scores; its options or its code are wrong"
            )

    def predict(self, inputs: Inputs, top: int = 3) -> list[Prediction]:
        """Classify pictures, folders, an index, or embeddings; pictures that cannot be read are left out.

        `predict_embedded` takes what `embed_inputs` returns and so tells what was skipped.
        """
        return list(self.predict_embedded(embed_inputs(self.encoder, inputs, progress=self.progress), top))

    def predict_embedded(self, queries: Embedded, top: int = 3) -> Iterator[Prediction]:
        """Classify what is embedded already; yields one prediction a row, in order."""
        top = max(1, min(top, len(self.classes)))
        for start in range(0, len(queries.names), CHUNK):
            rows = queries.embeddings[start : start + CHUNK]  # [n, D]
            logits = self.logits(rows)  # [n, C]
            self._check_numbers(logits)
            which = logits.topk(top).indices  # [n, top], not of the probabilities, where close logits become equal
            best = logits.softmax(-1).gather(-1, which)  # [n, top]
            nearest = self._nearest(rows)
            for i, (scores, labels) in enumerate(zip(best.tolist(), which.tolist(), strict=True)):
                ranked = tuple((self.classes[label], score) for label, score in zip(labels, scores, strict=True))
                yield Prediction(queries.names[start + i], *ranked[0], ranked, nearest[i])

    def _nearest(self, rows: Tensor) -> Sequence[str | None]:
        if self._support is None or not self._support.names:
            return [None] * len(rows)
        return [self._support.names[i] for i in (rows @ self._support.embeddings.mT).argmax(-1).tolist()]

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the classifier to one file (safetensors with a JSON header) that needs no support pictures.

        Raises
        ------
        OutputExists, OutputError, MissingInput
            when the file is there and `overwrite` is false, cannot be written, or nothing was fitted.
        """
        if self.head is None or self.strategy is None:
            raise MissingInput("this classifier has not been fitted yet; call fit() first")
        tensors, head = head_to_tensors(self.head)
        meta = {
            "encoder": self.encoder.name,
            "fingerprint": self.encoder.fingerprint,
            "strategy": self.strategy.name,
            "options": to_json(self.strategy),
            "classes": list(self.classes),
            "head": head,
            "support": len(self._support.names) if self._support else 0,
            "made_by": f"fewshot {__version__}",
        }
        write_model(Path(path), tensors, meta, overwrite)

    @classmethod
    def load(
        cls, path: str | Path, *, encoder: Encoder | None = None, device: str = "auto", progress: bool = False
    ) -> Classifier:
        """Read a saved classifier, with its encoder unless that is given.

        Raises
        ------
        FormatError
            when the file is damaged or not one of ours.
        FingerprintMismatch
            when this machine's encoder of that name is not the one it was made with.
        """
        tensors, meta = read_model(Path(path), torch.device("cpu"))
        try:
            name, fingerprint = str(meta["encoder"]), str(meta["fingerprint"])
            strategy = build(registry().strategy(meta["strategy"]), meta["options"])
            classes, head_meta = tuple(map(str, meta["classes"])), meta["head"]
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{path} is damaged: its header lacks or garbles {error}") from error
        encoder = encoder or load_encoder(name, device)
        if encoder.fingerprint != fingerprint:
            raise FingerprintMismatch(
                f"{path} was made with encoder {name} ({fingerprint}), but this machine's {encoder.name} is "
                f"{encoder.fingerprint}; use the same weights and versions, or fit again"
            )
        tensors = {key: tensor.to(encoder.device) for key, tensor in tensors.items()}
        loaded = cls(strategy, encoder, progress=progress)
        loaded.head = head_from_tensors(type(strategy), tensors, head_meta)
        loaded.classes = classes
        loaded._try_out(Path(path))
        return loaded

    def _try_out(self, path: Path) -> None:
        """Score one made-up embedding, so that a damaged file is refused before any picture is embedded."""
        try:
            scores = self._score_one()  # [1, C]
        except Exception as error:  # tensors whose shapes or dtypes do not fit make torch raise anything
            raise FormatError(f"{path} is damaged: its tensors do not fit each other; fit again") from error
        if scores.shape != (1, len(set(self.classes))) or len(set(self.classes)) != len(self.classes):
            raise FormatError(f"{path} is damaged: it names {len(self.classes)} classes but scores others; fit again")
        if scores.isnan().any():
            raise FormatError(f"{path} is damaged: its tensors hold NaN; fit again")
