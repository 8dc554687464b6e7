"""Domain-adversarial adapter on frozen embeddings. Ganin et al. 2016, arXiv:1505.07818."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot import Strategy, Task, hookimpl, option
from fewshot.arrays import unit
from fewshot.errors import MissingInput

DECAY = 1e-3  # of all weights
SCALE = 14.0  # on the class scores, as in `ridge` for one shot


@dataclass(frozen=True, slots=True)
class AdapterHead:
    """A low-rank change of the embedding, then linear scores."""

    down: Tensor  # [R, D]
    up: Tensor  # [D, R]
    weight: Tensor  # [C, D]
    bias: Tensor  # [C]

    def logits(self, query: Tensor) -> Tensor:
        """Score queries.  [Q, D] -> [Q, C]"""
        return adapt(query, self.down, self.up) @ self.weight.mT + self.bias


def adapt(z: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """unit(z + up relu(down z)).  [n, D] -> [n, D]"""
    return unit(z + F.relu(z @ down.mT) @ up.mT)


@dataclass(frozen=True, slots=True)
class Examples:
    """What is learned from: labelled rows of both domains, and all rows with their domain."""

    x: Tensor  # [n, D] source, support, unlabelled
    labels: Tensor  # [m] of the first m rows; the source's own classes count from C on
    share: Tensor  # [m] weight of each label, of sum 1: half for either domain
    domain: Tensor  # [n] 0 or 1
    part: Tensor  # [n] weight of each row for the discriminator, of sum 1: half for either domain


def examples(task: Task) -> Examples:
    """Drop padding, number all classes from 0, balance the domains."""
    far, near = task.source_labels >= 0, task.labels >= 0
    own = task.source_labels[far]
    rank = torch.unique((own - task.classes).clamp_min(-1), return_inverse=True)
    first = int(bool((rank[0] == -1).any()))
    numbers = torch.where(own < task.classes, own, task.classes + rank[1] - first)
    if len(torch.unique(own)) < 2:
        raise MissingInput(f"strategy 'dann' wants at least 2 classes in the source, got {len(torch.unique(own))}")
    target = torch.cat([task.support[near], task.unlabeled])
    x, labels = torch.cat([task.source[far], target]), torch.cat([numbers, task.labels[near]])
    empty = [c for c in range(task.classes) if not bool((labels == c).any())]
    if empty:
        raise MissingInput(f"strategy 'dann' needs an example of class number {empty[0]}, in source or support")
    domain = (torch.arange(len(x), device=x.device) >= len(own)).to(x.dtype)
    return Examples(x, labels, _balanced(domain[: len(labels)]), domain, _balanced(domain))


def _balanced(domain: Tensor) -> Tensor:
    count = torch.where(domain > 0, domain.sum(), (1 - domain).sum())  # [n] items of its domain
    return 1 / count / (1 / count).sum()


def losses(weights: list[Tensor], data: Examples, strength: float) -> Tensor:
    """Class loss, plus the discriminator's, whose gradient is reversed and scaled where it enters the adapter."""
    down, up, weight, bias, *_ = weights
    z = adapt(data.x, down, up)  # [n, D]
    scores = SCALE * z[: len(data.labels)] @ weight.mT + bias  # [m, C + K]
    classes = (data.share * F.cross_entropy(scores, data.labels, reduction="none")).sum()
    reversed_z = z * -strength + (z * (1 + strength)).detach()  # gradient reversal: z forwards, -strength backwards
    decay = DECAY / 2 * torch.stack([w.square().sum() for w in weights]).sum()
    return classes + discriminator_loss(reversed_z, data, weights) + decay


def discriminator_loss(z: Tensor, data: Examples, weights: list[Tensor]) -> Tensor:
    """Cross-entropy of telling the domains apart; log 2 when it cannot.  z [n, D]"""
    hidden, shift, out, middle = weights[4:]
    domain = F.relu(z @ hidden.mT + shift) @ out + middle  # [n]
    return (data.part * F.binary_cross_entropy_with_logits(domain, data.domain, reduction="none")).sum()


def start(dim: int, classes: int, rank: int, like: Tensor) -> list[Tensor]:
    """First weights: the adapter does nothing, no class is preferred, the discriminator is always the same."""
    rng = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64) / math.sqrt(shape[-1])

    zeros = [torch.zeros(shape, dtype=torch.float64) for shape in ((dim, rank), (classes, dim), (classes,))]
    made = [random(rank, dim) * 4, *zeros, random(rank, dim) * 4, torch.zeros(rank), random(rank), torch.zeros(())]
    return [w.to(like.device, like.dtype).requires_grad_() for w in made]


@dataclass(frozen=True)
class Dann(Strategy):
    """Learn a small change of the embeddings after which classes are told apart and domains are not.

    The adapter is f(z) = unit(z + U relu(V z)), V [R, D], U [D, R]; one linear classifier answers for the task's
    classes and the source's own; a discriminator with R hidden units tells source from target by f(z). The adapter
    follows the gradient of the classes' cross-entropy less `strength` times that of the discriminator's (gradient
    reversal), with the paper's schedule strength (2 / (1 + exp(-10 p)) - 1), p from 0 to 1. The paper trains the whole
    network; here the encoder stays frozen. Both domains have equal weight. Adam at `rate`, falling along a cosine, all
    items a step, from fixed first weights, so the same task gives the same head. Classes of the source need not be the
    task's.
    """

    name = "dann"
    needs = frozenset({"source"})
    uses = frozenset({"support", "unlabeled"})
    batched = False
    speed = "gradient"
    paper = "Ganin, Ustinova, Ajakan, Germain, Larochelle, Laviolette, Marchand, Lempitsky 2016, arXiv:1505.07818"
    heads = (AdapterHead,)
    rank: int = option(32, "R: hidden units of the adapter, and of the discriminator", min=1)
    strength: float = option(0.1, "weight of the reversed gradient; 0 only learns the classes", min=0.0)
    steps: int = option(120, "steps of Adam", min=1)
    rate: float = option(0.01, "first learning rate", min=1e-6)

    def fit(self, task: Task) -> AdapterHead:
        """Train the adapter.  -> down [R, D], up [D, R], weight [C, D], bias [C]"""
        _, weights = self._learn(task)
        down, up, weight, bias = (w.detach().to(task.dtype) for w in weights[:4])
        return AdapterHead(down, up, SCALE * weight[: task.classes], bias[: task.classes])

    def moved(self, task: Task) -> tuple[Tensor, Tensor]:
        """Where the source's and the target's items go.  -> [N, D], [S + U, D]"""
        data, weights = self._learn(task)
        z = adapt(data.x, *weights[:2]).detach()  # [n, D]
        return z[data.domain == 0], z[data.domain == 1]

    def _learn(self, task: Task) -> tuple[Examples, list[Tensor]]:
        with torch.inference_mode(False), torch.enable_grad():
            data = examples(Task(**{name: getattr(task, name).clone() for name in Task.__slots__}))
            weights = start(task.dim, int(data.labels.max()) + 1, self.rank, data.x)
            self.train(weights, data)
        return data, weights

    def train(self, weights: list[Tensor], data: Examples) -> None:
        """Descend, in place."""
        optimiser = torch.optim.Adam(weights, lr=self.rate)
        for step in range(self.steps):
            progress = step / self.steps
            optimiser.param_groups[0]["lr"] = self.rate * (1 + math.cos(math.pi * progress)) / 2
            loss = losses(weights, data, self.strength * (2 / (1 + math.exp(-10 * progress)) - 1))
            for w, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                w.grad = slope
            optimiser.step()


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `dann`."""
    register(Dann)
