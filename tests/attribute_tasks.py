"""Made-up problems with seen and unseen classes: embeddings are a noisy linear picture of the attributes."""

import torch
from torch import Tensor

from fewshot.arrays import unit
from fewshot.task import Task, make_task


def attribute_task(
    seen: int = 6,
    unseen: int = 3,
    shots: int = 5,
    attributes: int = 8,
    dim: int = 12,
    seed: int = 0,
    noise: float = 0.3,
) -> tuple[Task, Tensor, Tensor]:
    """A float64 task whose first classes are seen, with queries and their classes.  -> task, [Q, D], [Q]"""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    table = torch.rand(seen + unseen, attributes, generator=rng, dtype=torch.float64)
    centre = unit((table - 0.5) @ normal(attributes, dim))
    labels = torch.arange(seen).repeat_interleave(shots)
    truth = torch.arange(seen + unseen).repeat_interleave(10)
    support = unit(centre[labels] + noise * normal(len(labels), dim) / dim**0.5)
    query = unit(centre[truth] + noise * normal(len(truth), dim) / dim**0.5)
    return make_task(support, labels, attributes=table), query, truth


def stacked(tasks: list[Task]) -> Task:
    """Tasks of one shape as a batch."""
    names = Task.__dataclass_fields__
    return Task(**{name: torch.stack([getattr(task, name) for task in tasks]) for name in names})


def z_scores(task: Task) -> list[list[float]]:
    """Signatures standardised with plain loops: z-scores over the seen classes, then rows of unit length."""
    table, seen = task.attributes.tolist(), task.seen().tolist()
    rows = [[0.0] * len(table[0]) for _ in table]
    for m in range(len(table[0])):
        column = [row[m] for row, there in zip(table, seen, strict=True) if there]
        mean = sum(column) / len(column)
        deviation = (sum((v - mean) ** 2 for v in column) / len(column)) ** 0.5
        for k, row in enumerate(table):
            rows[k][m] = (row[m] - mean) / deviation if max(column) > min(column) else 0.0
    return [[v / (sum(w * w for w in row) ** 0.5 or 1.0) for v in row] for row in rows]
