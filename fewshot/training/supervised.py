"""Fine-tuning on labelled pictures: first a linear head on the frozen features, then head and chosen weights together.

Starting from the fitted head keeps the features from being distorted by a random one (Kumar 2022, arXiv:2202.10054).
Each stage learns more slowly than the one above it (Howard, Ruder 2018, arXiv:1801.06146). After each epoch the loss on
held-out pictures is taken; the weights of the best epoch are kept, the untouched ones among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.arrays import unit
from fewshot.encoders.body import Body
from fewshot.errors import InvalidOption
from fewshot.registry import registry
from fewshot.strategy import LinearHead, fit
from fewshot.task import make_task
from fewshot.training.adapt import Choice, effective, parameters
from fewshot.training.journal import Journal, optimizer_tensors, restore_optimizer
from fewshot.training.pictures import Pictures, batches, split

Params = dict[str, Tensor]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """All choices of a run; it, the encoder and the data make the result."""

    encoder: str = "lite"
    freeze: str = "stages:2"
    lora: int = 0
    epochs: int = 20
    batch: int = 32
    rate: float = 1e-4  # of the last stage and the head
    stage_decay: float = 0.5  # factor on the rate from one stage to the one before it
    decay: float = 1e-4
    patience: int = 5  # epochs without a better loss before it stops
    hold_out: float = 0.2  # share of each class
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for name in ("epochs", "batch", "patience"):
            if getattr(self, name) < 1:
                raise InvalidOption(f"--{name} must be 1 or more, got {getattr(self, name)}")
        if not (self.rate > 0 and self.decay >= 0 and 0 < self.stage_decay <= 1 and 0 <= self.hold_out < 1):
            raise InvalidOption(
                "--rate must be above 0, --decay 0 or more, --stage-decay in (0, 1], --hold-out in [0, 1)"
            )


@dataclass(frozen=True, slots=True)
class Net:
    """What does not change during a run: the network, what of it to train, and where."""

    body: Body
    choice: Choice
    device: torch.device

    def features(self, moved: Params, x: Tensor) -> Tensor:
        """Features of unit norm with the parameters as they are; on a GPU in bfloat16.  -> [n, D]"""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            found = self.body.after(effective(self.body, moved), x.to(self.device), self.choice.first)
        return unit(found.float())


@dataclass(slots=True)
class State:
    """What changes, and all that a checkpoint holds."""

    moved: Params
    head: Params  # weight [C, D], bias [C]
    best: Params  # `moved` of the best epoch
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf

    def save(self, journal: Journal) -> None:
        """Write a checkpoint."""
        tensors = {f"now {k}": v for k, v in self.moved.items()} | {f"head {k}": v for k, v in self.head.items()}
        tensors |= {f"best {k}": v for k, v in self.best.items()} | optimizer_tensors(self.optimizer)
        journal.save(self.epoch, tensors, best_epoch=self.best_epoch, best_loss=self.best_loss)

    def restore(self, journal: Journal) -> None:
        """Go back to the checkpoint."""
        with torch.no_grad():
            for prefix, own in (("now", self.moved), ("head", self.head), ("best", self.best)):
                for key, value in own.items():
                    value.copy_(journal.tensors[f"{prefix} {key}"])
        restore_optimizer(self.optimizer, journal.tensors)
        self.epoch = journal.step
        self.best_epoch, self.best_loss = journal.notes["best_epoch"], journal.notes["best_loss"]

    def remember(self, loss: float) -> None:
        """Keep the weights as they are now if this is the best loss so far."""
        if loss < self.best_loss:
            self.best_epoch, self.best_loss = self.epoch, loss
            self.best = {key: value.detach().clone() for key, value in self.moved.items()}


def begin(net: Net, pictures: Pictures, recipe: Recipe) -> State:
    """Start at the base, with the head that `linear_probe` finds on its features."""
    moved = parameters(net.body, net.choice, recipe.freeze, torch.Generator().manual_seed(recipe.seed))
    with torch.no_grad():
        rows = torch.cat([net.features(moved, x[:, 0]).cpu() for x in torch.split(pictures.inputs, 64)])  # [N, D]
    found = fit(registry().strategy("linear_probe")(), make_task(rows, pictures.labels))
    assert isinstance(found, LinearHead)
    assert found.bias is not None
    parts = {"weight": found.weight, "bias": found.bias}
    head = {key: value.to(net.device).clone().requires_grad_() for key, value in parts.items()}
    best = {key: value.detach().clone() for key, value in moved.items()}
    return State(moved, head, best, make_optimizer(moved, head, net.choice, recipe))


def make_optimizer(moved: Params, head: Params, choice: Choice, recipe: Recipe) -> torch.optim.AdamW:
    """Give each stage its own rate; biases, norms and gains do not decay."""
    groups = [{"params": [*head.values()], "lr": recipe.rate, "weight_decay": 0.0}]
    for depth, names in enumerate(choice.stages):
        own = [value for key, value in moved.items() if key.partition(" ")[2] in names]
        for params, decay in (([p for p in own if p.ndim > 1], recipe.decay), ([p for p in own if p.ndim <= 1], 0.0)):
            rate = recipe.rate * recipe.stage_decay**depth
            groups += [{"params": params, "lr": rate, "weight_decay": decay}] if params else []
    return torch.optim.AdamW([{**group, "top": group["lr"]} for group in groups])


def check(net: Net, state: State, held: Pictures) -> dict[str, float]:
    """Mean loss and accuracy on held-out pictures, for the log; nothing where none are held out."""
    if not len(held.labels):
        return {}
    loss, right = 0.0, 0
    with torch.no_grad():
        for x, y in zip(torch.split(held.inputs, 64), torch.split(held.labels, 64), strict=True):
            logits = (net.features(state.moved, x[:, 0]) @ state.head["weight"].T + state.head["bias"]).cpu()
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            right += int((logits.argmax(-1) == y).sum())
    return {"held_out_loss": loss / len(held.labels), "held_out": right / len(held.labels)}


def train_epoch(net: Net, state: State, pictures: Pictures, recipe: Recipe) -> float:
    """Go once over the pictures, half of them mirrored; the rate falls by a cosine over all epochs.  -> mean loss"""
    rng = np.random.default_rng([recipe.seed, 2, state.epoch])
    total = 0.0
    parts = batches(np.arange(len(pictures.labels)), recipe.batch, rng)
    for i, rows in enumerate(parts):
        share = (state.epoch + i / len(parts)) / recipe.epochs
        for group in state.optimizer.param_groups:
            group["lr"] = group["top"] * 0.5 * (1 + math.cos(math.pi * share))
        side = torch.from_numpy(rng.integers(2, size=len(rows)))
        x = net.features(state.moved, pictures.inputs[rows, side])  # [n, D]
        wanted = pictures.labels[rows].to(net.device)
        loss = F.cross_entropy(x @ state.head["weight"].T + state.head["bias"], wanted)
        state.optimizer.zero_grad()
        torch.autograd.backward(loss)
        state.optimizer.step()
        total += float(loss.detach()) * len(rows)
    return total / len(pictures.labels)


def train(net: Net, pictures: Pictures, recipe: Recipe, journal: Journal, say: Say) -> Params:
    """Run the recipe, or what the journal says is left of it; return the tensors of the best epoch, if it moved any."""
    rows = split(pictures.labels, recipe.hold_out, recipe.seed)
    ours, held = (Pictures(pictures.inputs[at], pictures.labels[at], pictures.classes) for at in rows)
    state = begin(net, ours, recipe)
    if journal.step:
        state.restore(journal)
        say(f"goes on from epoch {journal.step} of {recipe.epochs}")
    elif first := check(net, state, held):
        state.remember(first["held_out_loss"])
        say(_line(journal.write(0, **first)) + ": the linear head on frozen features")
    for epoch in range(state.epoch, recipe.epochs if state.moved else 0):
        if len(held.labels) and epoch - state.best_epoch >= recipe.patience:
            say(f"no epoch was better than {state.best_epoch} for {recipe.patience}: stops")
            break
        mean = train_epoch(net, state, ours, recipe)
        state.epoch += 1
        checked = check(net, state, held)
        say(_line(journal.write(state.epoch, loss=mean, **checked)))
        state.remember(checked.get("held_out_loss", -state.epoch))  # without held-out pictures the last is the best
        state.save(journal)
    if not state.best_epoch:
        return {}
    with torch.no_grad():
        return {name: value.detach().clone() for name, value in effective(net.body, state.best).items()}


def _line(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{'epoch' if key == 'step' else key.replace('_', ' ')} {value:.4g}" for key, value in values.items()
    )
