"""A picture scaled and its centre cut out, as torchvision does with a PIL image, without torchvision.

It is what nearly every model's preprocessing begins with. The packages that the original comes from take seconds to
import and hundreds of megabytes, in each process that decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

TO_RGB = {"MaybeConvertMode", "_convert_to_rgb"}  # steps, by name, that do nothing to an RGB picture


@dataclass(frozen=True, slots=True)
class ScaledCentre:
    """Scale the shorter side to `size` pixels, or both sides, (height, width); cut `crop`, (height, width), out."""

    size: tuple[int, ...]
    filter: Image.Resampling
    crop: tuple[int, int] | None

    @classmethod
    def of(cls, steps: Sequence[Any]) -> ScaledCentre | None:
        """Do the same as some steps of a torchvision transform, or return None where that is not known."""
        from torchvision.transforms import CenterCrop, Resize

        known = [step for step in steps if not _to_rgb(step)]
        if [type(step) for step in known] not in ([Resize], [Resize, CenterCrop]) or known[0].max_size is not None:
            return None
        name = known[0].interpolation.value.upper()
        size = tuple(known[0].size) if isinstance(known[0].size, Sequence) else (known[0].size,)
        crop = tuple(known[1].size) if len(known) == 2 else None
        fits = crop is None or (crop[0] <= size[0] and crop[1] <= size[-1])  # else there is black around it
        if name not in Image.Resampling.__members__ or not fits:
            return None
        return cls(size, Image.Resampling[name], crop)

    def __call__(self, image: Image.Image) -> Tensor:
        """Scale and cut a picture.  -> [3, height, width] uint8"""
        image = image if image.mode == "RGB" else image.convert("RGB")
        short = self.size[0]
        if len(self.size) == 2:
            height, width = self.size
        elif image.width <= image.height:
            width, height = short, int(short * image.height / image.width)
        else:
            width, height = int(short * image.width / image.height), short
        scaled = image if image.size == (width, height) else image.resize((width, height), self.filter)
        if self.crop is not None:
            down, across = self.crop
            left, top = round((width - across) / 2), round((height - down) / 2)
            scaled = scaled.crop((left, top, left + across, top + down))
        return torch.from_numpy(np.array(scaled)).permute(2, 0, 1)


def _to_rgb(step: Any) -> bool:
    return getattr(step, "__name__", type(step).__name__) in TO_RGB and getattr(step, "mode", "RGB") == "RGB"
