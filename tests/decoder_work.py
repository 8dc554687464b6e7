"""Work for processes of `fewshot.decoders`, which import it by name."""

import os

import torch
from torch import Tensor


def squares(base: Tensor, jobs: list[int]) -> tuple[int, Tensor]:
    """Tell the process, and square numbers; a 7 is refused.  -> [n]"""
    print("noise on standard output")
    if 7 in jobs:
        raise ArithmeticError("7")
    return os.getpid(), torch.tensor(jobs) ** 2 + base


def refuses(base: Tensor, jobs: list[int]) -> tuple[int, Tensor]:
    """Do it anywhere but in the process of the tests."""
    if os.environ.get("PYTEST_CURRENT_TEST") and os.getpid() == int(base):
        raise AssertionError("done in the parent")
    return os.getpid(), torch.tensor(jobs)
