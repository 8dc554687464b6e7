"""Predictions of easyfsl on the tasks of our tests."""

import importlib

import torch
from torch import Tensor, nn

from fewshot import Task


def easyfsl_scores(name: str, task: Task, query: Tensor, **options: object) -> Tensor:
    """Scores of an easyfsl method, one task at a time.  -> [Q, C]"""
    method = getattr(importlib.import_module("easyfsl.methods"), name)(nn.Identity(), **options)
    with torch.no_grad():
        method.process_support_set(task.support, task.labels)
        scores: Tensor = method(query)
    return scores
