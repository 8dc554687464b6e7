"""Fine-tuning on labelled pictures: first a linear head on the frozen features, then head and chosen weights together.

Starting from the fitted head keeps the features from being distorted by a random one (Kumar 2022, arXiv:2202.10054).
Each stage learns more slowly than the one above it (Howard, Ruder 2018, arXiv:1801.06146). After each epoch the loss on
held-out pictures is taken; the weights of the best epoch are kept, the untouched ones among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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


@contextmanager
def mixed(device: torch.device) -> Iterator[None]:
    """Compute in bfloat16 where it pays: on a GPU."""
    with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
        yield


def features(body: Body, moved: Params, choice: Choice, x: Tensor, device: torch.device) -> Tensor:
    """Features of unit norm with the parameters as they are.  -> [n, D]"""
    with mixed(device):
        found = body.after(effective(body, moved), x.to(device), choice.first)
    return unit(found.float())


def fit_head(
    body: Body, moved: Params, choice: Choice, pictures: Pictures, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Solve `linear_probe` on the features of the pictures as they are.  -> weight [C, D], bias [C]"""
    with torch.no_grad():
        parts = [features(body, moved, choice, x[:, 0], device).cpu() for x in pictures.inputs.split(64)]
    head = fit(registry().strategy("linear_probe")(), make_task(torch.cat(parts), pictures.labels))
    assert isinstance(head, LinearHead)
    assert head.bias is not None
    return head.weight.to(device), head.bias.to(device)


def check(
    body: Body, moved: Params, head: Params, choice: Choice, held: Pictures, device: torch.device
) -> tuple[float, float]:
    """Mean loss and accuracy on held-out pictures."""
    loss, right = 0.0, 0
    with torch.no_grad():
        for x, y in zip(held.inputs.split(64), held.labels.split(64), strict=True):
            logits = (features(body, moved, choice, x[:, 0], device) @ head["weight"].T + head["bias"]).cpu()
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            right += int((logits.argmax(-1) == y).sum())
    return loss / len(held.labels), right / len(held.labels)


def make_optimizer(moved: Params, head: Params, choice: Choice, recipe: Recipe) -> torch.optim.AdamW:
    """Give each stage its own rate; biases, norms and gains do not decay."""
    groups = [{"params": [*head.values()], "lr": recipe.rate, "weight_decay": 0.0}]
    for depth, names in enumerate(choice.stages):
        own = [value for key, value in moved.items() if key.partition(" ")[2] in names]
        for params, decay in (([p for p in own if p.ndim > 1], recipe.decay), ([p for p in own if p.ndim <= 1], 0.0)):
            rate = recipe.rate * recipe.stage_decay**depth
            groups += [{"params": params, "lr": rate, "weight_decay": decay}] if params else []
    return torch.optim.AdamW([{**group, "top": group["lr"]} for group in groups])


def train_epoch(
    body: Body,
    moved: Params,
    head: Params,
    choice: Choice,
    optimizer: torch.optim.Optimizer,
    pictures: Pictures,
    recipe: Recipe,
    epoch: int,
    device: torch.device,
) -> float:
    """Go once over the pictures, half of them mirrored; the rate falls by a cosine over all epochs.  -> mean loss"""
    rng = np.random.default_rng([recipe.seed, 2, epoch])
    total = 0.0
    parts = batches(np.arange(len(pictures.labels)), recipe.batch, rng)
    for i, rows in enumerate(parts):
        share = (epoch + i / len(parts)) / recipe.epochs
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * 0.5 * (1 + math.cos(math.pi * share))
        side = torch.from_numpy(rng.integers(2, size=len(rows)))
        x = features(body, moved, choice, pictures.inputs[rows, side], device)
        loss = F.cross_entropy(x @ head["weight"].T + head["bias"], pictures.labels[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(rows)
    return total / len(pictures.labels)


def train(
    body: Body,
    choice: Choice,
    pictures: Pictures,
    recipe: Recipe,
    journal: Journal,
    device: torch.device,
    say: Callable[[str], None],
) -> dict[str, Tensor]:
    """Run the recipe, or what the journal says is left of it; return the tensors of the best epoch, if it moved any."""
    at, out = split(pictures.labels, recipe.hold_out, recipe.seed)
    ours, held = (Pictures(pictures.inputs[rows], pictures.labels[rows], pictures.classes) for rows in (at, out))
    moved = parameters(body, choice, recipe.freeze, torch.Generator().manual_seed(recipe.seed))
    weight, bias = fit_head(body, moved, choice, ours, device)
    head = {"weight": weight.clone().requires_grad_(), "bias": bias.clone().requires_grad_()}
    optimizer = make_optimizer(moved, head, choice, recipe)
    best = {key: value.detach().clone() for key, value in moved.items()}
    notes = {"best": 0, "loss": math.inf}
    if journal.step:
        notes = journal.notes
        _restore({**moved, **{f"head {k}": v for k, v in head.items()}}, best, journal, optimizer)
        say(f"goes on from epoch {journal.step} of {recipe.epochs}")
    elif len(out):
        loss, right = check(body, moved, head, choice, held, device)
        notes["loss"] = loss
        journal.write(0, held_out_loss=round(loss, 5), held_out=round(right, 4))
        say(f"epoch 0, held-out loss {loss:.4f}, accuracy {right:.4f}: the linear head on frozen features")
    for epoch in range(journal.step, recipe.epochs if moved else 0):
        if epoch - notes["best"] >= recipe.patience and len(out):
            say(f"no better epoch since {notes['best']}: stops")
            break
        mean = train_epoch(body, moved, head, choice, optimizer, ours, recipe, epoch, device)
        loss, right = check(body, moved, head, choice, held, device) if len(out) else (-epoch, math.nan)
        extra = {"held_out_loss": round(loss, 5), "held_out": round(right, 4)} if len(out) else {}
        line = journal.write(epoch + 1, loss=round(mean, 5), **extra)
        say(", ".join(f"{'epoch' if key == 'step' else key} {value}" for key, value in line.items()))
        if loss < notes["loss"]:
            notes = {"best": epoch + 1, "loss": loss}
            best = {key: value.detach().clone() for key, value in moved.items()}
        tensors = {f"now {k}": v for k, v in moved.items()} | {f"best {k}": v for k, v in best.items()}
        tensors |= {f"now head {k}": v for k, v in head.items()} | optimizer_tensors(optimizer)
        journal.save(epoch + 1, tensors, **notes)
    if not notes["best"]:
        return {}
    with torch.no_grad():
        return {name: value.detach().clone() for name, value in effective(body, best).items()}


def _restore(now: Params, best: Params, journal: Journal, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for key, value in now.items():
            value.copy_(journal.tensors[f"now {key}"])
        for key, value in best.items():
            value.copy_(journal.tensors[f"best {key}"])
    restore_optimizer(optimizer, journal.tensors)
