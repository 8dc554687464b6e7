"""A model's own preprocessing in two halves: what is done to the picture, and what is done to its numbers.

Up to the second half a picture is bytes, a quarter of the memory; that half runs on the model's device, on a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from fewshot.encoders.scaled_centre import ScaledCentre

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Some torchvision transform; where it does not end with `ToTensor` and `Normalize` the second half is empty."""

    to_pixels: Transform
    mean: Tensor | None  # [3, 1, 1]
    deviation: Tensor | None

    @classmethod
    def of(cls, transform: Transform) -> Preprocessing:
        """Cut a transform in two."""
        from torchvision.transforms import Compose, Normalize, PILToTensor, ToTensor

        steps = transform.transforms if isinstance(transform, Compose) else []
        if len(steps) < 2 or not isinstance(steps[-2], ToTensor) or not isinstance(steps[-1], Normalize):
            return cls(transform, None, None)
        first = ScaledCentre.of(steps[:-2]) or Compose([*steps[:-2], PILToTensor()])
        numbers = (torch.as_tensor(v, dtype=torch.float32) for v in (steps[-1].mean, steps[-1].std))
        return cls(first, *(v.reshape(-1, 1, 1) for v in numbers))

    def normalise(self, pixels: Tensor, device: torch.device) -> Tensor:
        """Do the second half, on a device, to float32.  [n, 3, H, W] -> [n, 3, H, W]"""
        there = pixels.to(device, non_blocking=True)  # before it becomes floats
        if self.mean is None or self.deviation is None:
            return there
        return (there.float() / 255).sub_(self.mean.to(device)).div_(self.deviation.to(device))
