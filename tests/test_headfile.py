"""Heads come apart into tensors and JSON and back; a damaged description is refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from fewshot import Head, LinearHead, StackedHead, Strategy, Task
from fewshot.errors import FormatError
from fewshot.headfile import head_from_tensors, head_to_tensors


@dataclass(frozen=True)
class Sum:
    """A head of heads, with one field of each kind."""

    first: LinearHead
    others: tuple[Head, ...]
    scale: float
    steps: int
    label: str | None
    flag: bool
    shift: Tensor

    def logits(self, query: Tensor) -> Tensor:
        total = self.first.logits(query) + self.shift
        for head in self.others:
            total = total + self.scale * head.logits(query)
        return total


@dataclass(frozen=True)
class Summing(Strategy):
    """Needs nothing more than its heads for these tests."""

    name = "summing"
    heads = (Sum,)

    def fit(self, task: Task) -> Head:
        return example()


def linear(seed: int, bias: bool = True) -> LinearHead:
    rng = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=rng)
    return LinearHead(weight, torch.randn(3, generator=rng) if bias else None)


def example() -> Sum:
    stacked = StackedHead((linear(2), linear(3)), (2,))
    return Sum(linear(0), (linear(1, bias=False), stacked), 0.5, 3, None, True, torch.ones(1))


def damaged(change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> tuple[dict[str, Tensor], Any]:
    tensors, meta = head_to_tensors(example())
    meta = json.loads(json.dumps(meta))
    return tensors, change(meta, tensors) or meta


def test_a_head_of_heads_survives() -> None:
    tensors, meta = head_to_tensors(example())
    nested = {f"others.1.heads.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")}
    assert set(tensors) == {"first.weight", "first.bias", "others.0.weight", "shift"} | nested
    again = head_from_tensors(Summing, tensors, json.loads(json.dumps(meta)))
    assert isinstance(again, Sum)
    assert isinstance(again.others[1], StackedHead)
    assert (again.scale, again.steps, again.label, again.flag, again.others[1].shape) == (0.5, 3, None, True, (2,))
    query = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(9))
    assert torch.equal(again.logits(query), example().logits(query))


def test_tensors_share_no_memory() -> None:
    shared = torch.zeros(3, 4)
    tensors, _ = head_to_tensors(LinearHead(shared.T.contiguous().T, shared[:, 0]))
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    tensors["bias"].fill_(1.0)
    assert shared.sum() == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m, t: t.pop("shift") is None or None, "tensor 'shift' is missing"),
        (lambda m, t: t.update(more=torch.ones(1)), "nothing uses tensor 'more'"),
        (lambda m, t: m.update(type="os.system"), "unknown head type 'os.system'"),
        (lambda m, t: m.update(type=["Sum"]), "unknown head type"),
        (lambda m, t: m["fields"].pop("steps") and None, "steps"),
        (lambda m, t: m["fields"].update(extra=1), "extra"),
        (lambda m, t: m["fields"].update(first={"tensor": "shift"}), "Sum.first cannot be a Tensor"),
        (lambda m, t: m["fields"].update(scale="half"), "Sum.scale cannot be a str"),
        (lambda m, t: m["fields"].update(steps=True), "Sum.steps cannot be a bool"),
        (lambda m, t: m["fields"].update(label=3), "Sum.label cannot be a int"),
        (lambda m, t: m["fields"].update(others=[1]), "Sum.others cannot be a tuple"),
        (lambda m, t: m["fields"].update(shift={"tensor": 3}), "tensor 3 is missing"),
        (lambda m, t: m["fields"].update(shift={"numpy": "x"}), "neither a tensor, a scalar nor a head"),
        (lambda m, t: json.loads("[" * 40 + "]" * 40), "nested"),
        (lambda m, t: "Sum", "not that of a head"),
        (lambda m, t: [m], "not that of a head"),
    ],
)
def test_a_damaged_description_is_refused(change: Callable[..., object], text: str) -> None:
    tensors, meta = damaged(change)
    with pytest.raises(FormatError, match=text):
        head_from_tensors(Summing, tensors, meta)


def test_a_head_that_cannot_be_saved_says_which_field() -> None:
    with pytest.raises(TypeError, match=r"first is a list"):
        head_to_tensors(Sum([1], (), 1.0, 1, None, False, torch.ones(1)))  # type: ignore[arg-type]
