"""Episodic training from scratch with the prototypical loss. Snell, Swersky, Zemel 2017, arXiv:1703.05175.

An episode is `way` classes with `shot` + `query` pictures each. The loss is the cross-entropy of each query over the
cosines to the classes' mean supports, times a learned scale. Every picture takes its turn as support: one pass through
the network gives shot + query episodes. Classes come group by group (alphabets), so that those to be told apart are
alike; symmetries make new groups. Every draw depends on the seed and the step only, so a resumed run is the same run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot.arrays import unit
from fewshot.encoders.convnet import Plan, build, embed, normalise
from fewshot.errors import DataError, InvalidOption
from fewshot.training.augment import SYMMETRIES, jitter, symmetric
from fewshot.training.bank import Bank, Ints
from fewshot.training.journal import Journal, optimizer_tensors, restore_optimizer

REPORT = 50  # steps between lines of the log
VALIDATE = 10  # lines of the log between looks at what is held out
WARM_UP = 0.05  # share of the steps
FIRST_SCALE = 10.0
TRIALS = 40  # held-out episodes a group


@dataclass(frozen=True, slots=True)
class Recipe:
    """All choices of a run; it and the data make the result."""

    way: int = 60
    shot: int = 1
    query: int = 3
    group: int = 20  # classes drawn from one group
    steps: int = 4000
    rate: float = 2e-3
    decay: float = 1e-4
    size: int = 32
    widths: tuple[int, ...] = (32, 64, 128, 256)
    symmetry: str = "none"
    jitter: float = 1.0
    hold_out: float = 0.15  # share of the groups, or of the classes where there is one group
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.symmetry not in SYMMETRIES:
            raise InvalidOption(f"--symmetry is one of {', '.join(SYMMETRIES)}, got {self.symmetry!r}")
        least = {"way": 2, "shot": 1, "query": 1, "group": 2, "steps": 1, "size": 2 ** len(self.widths)}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InvalidOption(f"--{name} must be {value} or more, got {getattr(self, name)}")
        if not (self.rate > 0 and self.decay >= 0 and 0 <= self.hold_out < 1 and 0 <= self.jitter <= 3):
            raise InvalidOption("--rate must be above 0, --decay 0 or more, --hold-out in [0, 1), --jitter in [0, 3]")


def hold_out(bank: Bank, recipe: Recipe) -> tuple[Bank, Bank]:
    """Split groups, or the classes of the only group, into those to train on and those held out."""
    rng = np.random.default_rng([recipe.seed, 1])
    groups = bank.groups
    if len(groups) == 1:
        order = rng.permutation(groups[0])
        out = round(len(order) * recipe.hold_out)
        parts = [np.sort(order[out:])], [np.sort(order[:out])] if out else []
    else:
        chosen = set(rng.permutation(len(groups))[: round(len(groups) * recipe.hold_out)].tolist())
        parts = [g for i, g in enumerate(groups) if i not in chosen], [g for i, g in enumerate(groups) if i in chosen]
    train, held = (Bank(bank.pixels, bank.members, tuple(part)) for part in parts)
    if not train.groups or max(map(len, train.groups)) < 2 or any(len(g) < 2 for g in held.groups):
        raise DataError(f"--hold-out {recipe.hold_out} leaves fewer than two classes to train or to validate on")
    return train, held


def draw(bank: Bank, recipe: Recipe, rng: np.random.Generator) -> Iterator[tuple[Ints, int]]:
    """Draw an episode: for one group after another, positions [classes, shot + query] and the symmetry of its pictures.

    A group is drawn in proportion to its classes; one that is drawn again comes in another symmetry if there is one.
    """
    sizes = np.array([len(group) for group in bank.groups], dtype=np.float64)
    missing, used = recipe.way, set()
    for _ in range(4 * recipe.way):
        number, turn = (
            int(rng.choice(len(sizes), p=sizes / sizes.sum())),
            int(rng.integers(SYMMETRIES[recipe.symmetry])),
        )
        if (number, turn) in used:
            continue
        used.add((number, turn))
        classes = rng.permutation(bank.groups[number])[: min(recipe.group, missing)]
        yield np.stack([rng.permutation(bank.members[c])[: recipe.shot + recipe.query] for c in classes]), turn
        missing -= len(classes)
        if not missing:
            return


def loss_of(embeddings: Tensor, scale: Tensor, shot: int) -> tuple[Tensor, Tensor]:
    """Prototypical loss and accuracy over all turns: turn t takes pictures t, t + 1 ... as support.  [C, k, D]"""
    ways, k, _ = embeddings.shape
    loss, right = embeddings.new_zeros(()), embeddings.new_zeros(())
    for turn in range(k):
        order = [(turn + i) % k for i in range(k)]
        prototypes = unit(embeddings[:, order[:shot]].mean(1))  # [C, D]
        logits = embeddings[:, order[shot:]].flatten(0, 1) @ prototypes.T * scale  # [C * query, C]
        wanted = torch.arange(ways, device=logits.device).repeat_interleave(k - shot)  # [C * query]
        loss = loss + F.cross_entropy(logits, wanted) / k
        right = right + (logits.argmax(-1) == wanted).float().mean() / k
    return loss, right


def rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate: up in a line, then down in half a cosine."""
    share = step / recipe.steps
    if share < WARM_UP:
        return recipe.rate * (share + 1 / recipe.steps) / WARM_UP
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))


def batch_of(bank: Bank, recipe: Recipe, plan: Plan, step: int, device: torch.device) -> tuple[Tensor, int]:
    """Draw and augment the pictures of a step.  -> [C * k, c, size, size], C"""
    rng = np.random.default_rng([recipe.seed, 2, step])
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    parts = []
    for positions, turn in draw(bank, recipe, rng):
        parts.append(symmetric(bank.pixels[torch.from_numpy(positions)], turn))  # [classes, k, c, size, size]
    pixels = torch.cat(parts)
    x = normalise(pixels.flatten(0, 1).to(device), plan)
    return jitter(x, recipe.jitter, noise), len(pixels)


def held_out_accuracy(network: nn.Module, bank: Bank, recipe: Recipe, plan: Plan, device: torch.device) -> float:
    """Accuracy on within-group episodes of held-out classes (`group` classes, one query each), always the same ones."""
    rng = np.random.default_rng([recipe.seed, 3])
    right: list[float] = []
    network.eval()
    with torch.inference_mode():
        for group in bank.groups:
            wanted = [bank.members[c] for c in group]
            pixels = bank.pixels[torch.from_numpy(np.concatenate(wanted))].to(device)
            rows = torch.cat([embed(network, part, plan) for part in torch.split(pixels, 256)])  # [n, D]
            parts = torch.split(rows, [len(m) for m in wanted])
            for _ in range(TRIALS):
                classes = rng.permutation(len(parts))[: recipe.group]
                picked = [rng.permutation(len(parts[c]))[: recipe.shot + 1] for c in classes]
                x = torch.stack(
                    [parts[c][p.tolist()] for c, p in zip(classes, picked, strict=True)]
                )  # [C, shot + 1, D]
                found = (x[:, -1] @ unit(x[:, :-1].mean(1)).T).argmax(-1)  # [C]
                right.append(float((found == torch.arange(len(x), device=found.device)).float().mean()))
    network.train()
    return float(np.mean(right))


@dataclass(frozen=True, slots=True)
class State:
    """What a run changes, and all that a checkpoint holds."""

    network: nn.Module
    scale: nn.Parameter  # [] logarithm of the factor on the cosines
    optimizer: torch.optim.Optimizer

    @classmethod
    def begin(cls, recipe: Recipe, plan: Plan, device: torch.device) -> State:
        """Draw the first weights."""
        torch.manual_seed(recipe.seed)
        network = build(plan).to(device)
        scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE), device=device))
        heavy = [p for p in network.parameters() if p.ndim > 1]
        light = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": heavy, "weight_decay": recipe.decay}, {"params": [*light, scale], "weight_decay": 0.0}]
        return cls(network, scale, torch.optim.AdamW(groups, lr=recipe.rate))

    def save(self, step: int, journal: Journal) -> None:
        """Write a checkpoint."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        journal.save(step, {**tensors, "scale": self.scale, **optimizer_tensors(self.optimizer)})

    def restore(self, journal: Journal) -> None:
        """Go back to the checkpoint."""
        found = {name.partition(".")[2]: v for name, v in journal.tensors.items() if name.startswith("network.")}
        self.network.load_state_dict(found)
        self.scale.data.copy_(journal.tensors["scale"])
        restore_optimizer(self.optimizer, journal.tensors)

    def learn(self, x: Tensor, ways: int, shot: int) -> Tensor:
        """Take one step on the pictures of an episode.  [C * k, c, h, w] -> [2] loss and accuracy before it"""
        loss, right = loss_of(unit(self.network(x)).reshape(ways, len(x) // ways, -1), self.scale.exp(), shot)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return torch.stack([loss.detach(), right]).cpu()


def train(
    bank: Bank, recipe: Recipe, plan: Plan, journal: Journal, device: torch.device, say: Callable[[str], None]
) -> nn.Module:
    """Run the recipe, or what the journal says is left of it, and return the network, in the mode for use."""
    training, held = hold_out(bank, recipe)
    state = State.begin(recipe, plan, device)
    if journal.step:
        state.restore(journal)
        say(f"goes on from step {journal.step} of {recipe.steps}")
    seen: list[Tensor] = []  # loss and accuracy of the steps since the last line of the log
    for step in range(journal.step, recipe.steps):
        for group in state.optimizer.param_groups:
            group["lr"] = rate_at(step, recipe)
        seen.append(state.learn(*batch_of(training, recipe, plan, step, device), recipe.shot))
        done = step + 1
        if done % REPORT and done < recipe.steps:
            continue
        loss, right = torch.stack(seen).mean(0).tolist()
        seen.clear()
        extra = {}
        if held.groups and (done % (REPORT * VALIDATE) == 0 or done == recipe.steps):
            extra["held_out"] = held_out_accuracy(state.network, held, recipe, plan, device)
        line = journal.write(done, loss=round(loss, 4), accuracy=round(right, 4), **extra)
        say(", ".join(f"{name} {value}" for name, value in line.items()))
        if journal.due() or done == recipe.steps:
            state.save(done, journal)
    return state.network.eval()
