"""A strategy whose code fails is named in one line, with the place."""

import json
import types
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fewshot import Classifier, LinearHead, Strategy, Task, fit, make_task
from fewshot.blame import blamed
from fewshot.encoders import load_encoder
from fewshot.errors import InvalidTask, PluginError
from fewshot.registry import PluginRow, Registry
from fewshot.testing import toy_task


@dataclass(frozen=True)
class Wrong(Strategy):
    """Does one thing wrong."""

    name = "wrong"
    how: str = "none"

    def fit(self, task: Task) -> LinearHead:
        """Fail in the way asked for."""
        weight = torch.ones(task.classes, task.dim)
        if self.how == "raise":
            raise ZeroDivisionError("oops")
        answers: dict[str, object] = {
            "none": None,
            "tensor": weight,
            "shape": LinearHead(weight[:, :-1]),
            "classes": LinearHead(weight[:-1]),
            "nan": LinearHead(weight * torch.nan),
        }
        return answers[self.how]  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def as_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWSHOT_STRICT_PLUGINS", raising=False)


def examples(dim: int) -> Tensor:
    return torch.eye(dim)[:4]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("none", r"'wrong' returns a NoneType from fit.*return a head"),
        ("tensor", r"'wrong' returns a Tensor from fit"),
        ("raise", r"'wrong' failed: ZeroDivisionError: oops \(test_blame.py, line \d+\)"),
        ("shape", r"'wrong' failed: RuntimeError"),
        ("classes", r"'wrong' scores one picture of 2 classes by \[1, 1\] numbers"),
        ("nan", r"'wrong' gives NaN"),
    ],
)
def test_a_classifier_names_the_strategy_that_fails(how: str, said: str) -> None:
    classifier = Classifier(Wrong(how), "toy")
    with pytest.raises(PluginError, match=said):
        classifier.fit(examples(classifier.encoder.dim), ["a", "a", "b", "b"])


def test_nan_for_one_picture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder("toy", "cpu")
    classifier = Classifier("prototypical", encoder).fit(examples(encoder.dim), ["a", "a", "b", "b"])
    scores = torch.tensor([[0.0, 1.0], [torch.nan, 0.0]])
    monkeypatch.setattr(classifier, "head", types.SimpleNamespace(logits=lambda query: scores))
    with pytest.raises(PluginError, match="'prototypical' gives NaN"):
        classifier.predict(examples(encoder.dim)[:2])


def test_the_line_is_that_of_the_strategy_not_of_a_library_it_calls() -> None:
    with pytest.raises(PluginError, match=r"test_blame\.py"), blamed(Wrong()):
        json.loads("{")


def test_our_errors_pass() -> None:
    with pytest.raises(InvalidTask, match="ours"), blamed(Wrong()):
        raise InvalidTask("ours")


def test_strict_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSHOT_STRICT_PLUGINS", "1")
    with pytest.raises(ZeroDivisionError, match="oops"):
        fit(Wrong("raise"), toy_task())


def test_one_task_at_a_time_is_checked_as_well() -> None:
    looped = dataclass(frozen=True)(type("Looped", (Wrong,), {"batched": False}))
    support = torch.eye(4).expand(3, 4, 4)
    with pytest.raises(PluginError, match="NoneType"):
        fit(looped(), make_task(support, torch.tensor([0, 0, 1, 1]).expand(3, 4)))


def test_a_declaration_that_fails_later_is_refused_at_once() -> None:
    from fewshot import hookimpl

    def load(cls: type) -> None:
        module = types.ModuleType("plugin")
        module.register_strategies = hookimpl(lambda register: register(cls))  # type: ignore[attr-defined]
        Registry().load(module, PluginRow("mine", "module", "distribution", "1"))

    for wrong in ("support", frozenset({"suport"})):
        with pytest.raises(PluginError, match=r"Bad.needs must be a frozenset of support, .*sup"):
            load(type("Bad", (Wrong,), {"needs": wrong}))
    with pytest.raises(PluginError, match="NoData is no dataclass"):
        load(type("NoData", (Strategy,), {"name": "no_data", "fit": Wrong.fit}))
    with pytest.raises(PluginError, match="not a concrete strategy class: it lacks fit"):
        load(type("NoFit", (Strategy,), {"name": "no_fit"}))
    with pytest.raises(PluginError, match="derive it from Strategy"):
        load(dict)
