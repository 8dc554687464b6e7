"""One encoder on several GPUs of a machine: every batch is shared out among them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image
from torch import Tensor

from fewshot.datasets import ImageSource
from fewshot.encoders import Encoder, load_encoder


class SpreadEncoder(Encoder):
    """Replicas of one encoder, each on a device of its own; equal to any of them in what it answers."""

    prefix = "spread"

    def __init__(self, replicas: Sequence[Encoder]) -> None:
        first = replicas[0]
        self.name, self.dim, self.fingerprint = first.name, first.dim, first.fingerprint
        self.device, self.templates = first.device, first.templates
        self._replicas = replicas
        self._pool = ThreadPoolExecutor(len(replicas), thread_name_prefix="gpu")

    @classmethod
    def create(cls, spec: str, device: torch.device) -> Encoder:
        """Load the encoder named `spec` on every GPU."""
        return load_on_all(spec, str(device))

    def __getstate__(self) -> dict[str, object]:
        """What another process needs to prepare pictures: one replica, and no threads."""
        return {**self.__dict__, "_replicas": self._replicas[:1], "_pool": None}

    def prepare(self, image: Image.Image) -> Tensor:
        """Prepare a picture as each of the replicas does."""
        return self._replicas[0].prepare(image)

    def prepare_source(self, source: ImageSource) -> Tensor:
        """Open and prepare a picture as each of the replicas does."""
        return self._replicas[0].prepare_source(source)

    def encode_prepared(self, batch: Tensor) -> Tensor:
        """Embed a part of the batch on each device, all at the same time.  [n, 3, H, W] -> [n, D]"""
        parts = batch.tensor_split(len(self._replicas))
        pairs = [(replica, part) for replica, part in zip(self._replicas, parts, strict=True) if len(part)]
        done = self._pool.map(lambda pair: pair[0].encode_prepared(pair[1]), pairs)
        return torch.cat([torch.zeros(0, self.dim), *done])

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts on the first device.  -> [n, D]"""
        return self._replicas[0].encode_texts(texts)


def load_on_all(name: str, device: str = "auto") -> Encoder:
    """Load an encoder on every GPU when `device` is "auto" and there are several, else on the one device.

    Raises
    ------
    UnknownName, WeightsMissing, InvalidOption
        as `load_encoder` does.
    """
    count = torch.cuda.device_count() if device == "auto" and torch.cuda.is_available() else 0
    if count < 2:
        return load_encoder(name, device)
    return SpreadEncoder([load_encoder(name, f"cuda:{number}") for number in range(count)])
