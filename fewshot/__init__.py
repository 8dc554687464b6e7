"""Zero-shot and few-shot classification and search over pictures and texts, through plugins."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fewshot.hookspecs import hookimpl

if TYPE_CHECKING:
    from fewshot.classifier import Classifier, Prediction
    from fewshot.encoders import Encoder, load_encoder
    from fewshot.errors import FewshotError
    from fewshot.options import option
    from fewshot.strategy import Head, LinearHead, StackedHead, Strategy, fit
    from fewshot.task import Task, make_task

__version__ = "0.1.0"

# Torch takes more than a second to import, so the names that need it are looked up on first use (PEP 562).
_HOME = {
    "Classifier": "classifier",
    "Encoder": "encoders",
    "FewshotError": "errors",
    "Head": "strategy",
    "LinearHead": "strategy",
    "Prediction": "classifier",
    "StackedHead": "strategy",
    "Strategy": "strategy",
    "Task": "task",
    "fit": "strategy",
    "load_encoder": "encoders",
    "make_task": "task",
    "option": "options",
}

__all__ = [
    "Classifier",
    "Encoder",
    "FewshotError",
    "Head",
    "LinearHead",
    "Prediction",
    "StackedHead",
    "Strategy",
    "Task",
    "__version__",
    "fit",
    "hookimpl",
    "load_encoder",
    "make_task",
    "option",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'fewshot' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fewshot.{_HOME[name]}"), name)
