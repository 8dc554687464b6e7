"""toy: colour histograms for tests and first steps with plugins; needs no weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewshot.arrays import unit
from fewshot.encoders import Encoder
from fewshot.errors import InvalidOption
from fewshot.hookspecs import hookimpl

BINS = 4  # levels a colour channel, so 64 colours
COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255), "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
COLOURS |= {"yellow": (255, 255, 0), "cyan": (0, 255, 255), "magenta": (255, 0, 255), "grey": (128, 128, 128)}


class ToyEncoder(Encoder):
    """A smoothed colour histogram; a text lies where the colours it names lie, any other text at a hashed direction."""

    prefix = "toy"
    about = "colour histogram, for tests: knows the names of nine colours"
    dim = BINS**3

    def __init__(self, device: torch.device) -> None:
        self.name = "toy"
        self.fingerprint = "toy-1"
        self.device = device
        levels = torch.arange(BINS, dtype=torch.float32)
        grid = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)  # [D, 3]
        self._smooth = torch.exp(-torch.cdist(grid, grid))  # [D, D] neighbouring colours overlap

    @classmethod
    def create(cls, spec: str, device: torch.device) -> ToyEncoder:
        """Build the encoder.

        Raises
        ------
        InvalidOption
            when the name says more than `toy`.
        """
        if spec:
            raise InvalidOption(f"encoder 'toy' has no variants, got 'toy:{spec}'; write --encoder toy")
        return cls(device)

    def prepare(self, image: Image.Image) -> Tensor:
        """Shrink to 32x32.  -> [3, 32, 32] uint8"""
        pixels = np.array(image.convert("RGB").resize((32, 32), Image.Resampling.BOX))  # [32, 32, 3]
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def encode_prepared(self, batch: Tensor) -> Tensor:
        """Count colours.  [n, 3, 32, 32] -> [n, D]"""
        level = (batch.long() * BINS // 256).flatten(2)  # [n, 3, 1024]
        colour = (level[:, 0] * BINS + level[:, 1]) * BINS + level[:, 2]  # [n, 1024]
        counts = torch.zeros(len(batch), self.dim).scatter_add_(1, colour, torch.ones(colour.shape))  # [n, D]
        return unit(counts @ self._smooth)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Place texts by the colours they name.  -> [n, D]"""
        if not texts:
            return torch.zeros(0, self.dim)
        return torch.cat([self._encode_text(text) for text in texts])

    def _encode_text(self, text: str) -> Tensor:
        named = [Image.new("RGB", (8, 8), rgb) for word, rgb in COLOURS.items() if word in text.lower()]
        if named:
            return unit(self.encode_images(named).mean(0, keepdim=True))  # [1, D]
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        return unit(torch.rand(1, self.dim, generator=torch.Generator().manual_seed(seed)))


@hookimpl
def register_encoders(register: Callable[[type[Encoder]], None]) -> None:
    """Register `toy`."""
    register(ToyEncoder)
