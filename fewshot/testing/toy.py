"""Small problems made from a seed: classes are directions on a sphere, everything else is noise around them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fewshot.arrays import unit
from fewshot.task import Task, make_task

PHRASES, ATTRIBUTES, UNLABELED = 3, 12, 6  # phrases a class, attributes a class, unlabelled items a class
SOURCE_CLASSES, SOURCE_SHOTS = 6, 5  # classes of the source alone, beside the task's own; items of each
SHIFT = 0.5  # of the task's classes in the source, all in one direction


def toy_task(
    inputs: Iterable[str] = ("support",),
    *,
    batch: tuple[int, ...] = (),
    classes: int = 4,
    shots: int = 3,
    dim: int = 24,
    unseen: int = 0,
    ragged: bool = False,
    noise: float = 0.6,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Task:
    """Make a task that holds the named `inputs`: support, text, attributes, unlabeled, source.

    Parameters
    ----------
    inputs
        what the task holds, e.g. `strategy.needs`; the rest is absent.
    batch
        leading batch dims `*B`; every task of the batch has classes of its own.
    unseen
        how many of the classes, the last ones, have no support.
    ragged
        give the classes unequal shots, from 1 to `shots`, through labels of -1.
    noise
        length of the noise relative to the class directions, which have length 1.
    """
    rng = torch.Generator().manual_seed(seed)
    directions = _directions(batch, classes, dim, seed)  # [*B, C, D]

    def around(centre: Tensor, count: int) -> Tensor:  # [*B, K, D] -> [*B, K * count, D], class after class
        many = centre.repeat_interleave(count, -2)
        return unit(many + noise * unit(torch.randn(many.shape, generator=rng, dtype=torch.float64)))

    held = set(inputs)
    seen = classes - unseen
    made: dict[str, Tensor] = {}
    if "support" in held:
        labels = torch.arange(seen).repeat_interleave(shots).expand(*batch, -1).clone()  # [*B, S]
        if ragged:
            keep = torch.randint(1, shots + 1, (*batch, seen, 1), generator=rng) > torch.arange(shots)  # [*B, C, shots]
            labels[~keep.flatten(-2)] = -1
        made |= {"support": around(directions[..., :seen, :], shots), "labels": labels}
    if "text" in held:
        text = around(directions, PHRASES)  # [*B, C * P, D]
        made["text"] = text.reshape(*batch, classes, PHRASES, dim)  # [*B, C, P, D]
    if "attributes" in held:
        basis = torch.randn(dim, ATTRIBUTES, generator=rng, dtype=torch.float64)
        made["attributes"] = torch.sigmoid(2 * directions @ basis)  # [*B, C, A] in (0, 1)
    if "unlabeled" in held:
        made["unlabeled"] = around(directions, UNLABELED)
    if "source" in held:
        other = unit(torch.randn(*batch, SOURCE_CLASSES, dim, generator=rng, dtype=torch.float64))
        shift = SHIFT * unit(torch.randn(*batch, 1, dim, generator=rng, dtype=torch.float64))
        numbers = torch.arange(classes + SOURCE_CLASSES).repeat_interleave(SOURCE_SHOTS)
        far = torch.cat([unit(directions + shift), other], -2)  # [*B, C + 6, D]
        made |= {"source": around(far, SOURCE_SHOTS), "source_labels": numbers.expand(*batch, -1).clone()}
    task = make_task(**made, classes=classes)
    return task.to(dtype)


def toy_queries(task: Task, per_class: int = 3, *, noise: float = 0.6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Queries for a task of `toy_task` made with the same seed, and their true classes.  -> [*B, Q, D], [Q]"""
    rng = torch.Generator().manual_seed(seed + 1_000_003)
    centre = _directions(tuple(task.batch_shape), task.classes, task.dim, seed).repeat_interleave(per_class, -2)
    query = unit(centre + noise * unit(torch.randn(centre.shape, generator=rng, dtype=torch.float64)))  # [*B, Q, D]
    return query.to(task.device, task.dtype), torch.arange(task.classes).repeat_interleave(per_class)


def _directions(batch: tuple[int, ...], classes: int, dim: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed + 2_000_003)
    return unit(torch.randn(*batch, classes, dim, generator=rng, dtype=torch.float64))  # [*B, C, D]
