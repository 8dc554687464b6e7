"""Encoders turn images and texts into unit vectors; `load_encoder` finds one by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from PIL import Image
from torch import Tensor

from fewshot.arrays import pick_device
from fewshot.datasets import ImageSource
from fewshot.errors import MissingInput
from fewshot.images import open_image
from fewshot.store import IMPORTED

if TYPE_CHECKING:
    from fewshot.encoders.body import Body


class Encoder(ABC):
    """A pretrained model behind two calls. Image preprocessing belongs to the encoder.

    Every embedding is a unit-norm float32 row on the CPU. `fingerprint` covers weights, preprocessing and numerics:
    two encoders with equal fingerprints give interchangeable embeddings, any other two never meet.
    """

    prefix: ClassVar[str]  # the part of the name before the colon
    about: ClassVar[str] = ""  # one line for `fewshot encoders`
    modalities: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    not_for_preparing: ClassVar[tuple[str, ...]] = ()  # attributes that processes which prepare pictures do without
    templates: tuple[str, ...] = ("{}",)  # prompt ensemble for a class name, unless the user gives one
    name: str  # as the user writes it, e.g. "clip:ViT-B-32/openai"
    dim: int  # D
    fingerprint: str
    device: torch.device

    @classmethod
    @abstractmethod
    def create(cls, spec: str, device: torch.device) -> Encoder:
        """Build the encoder from what follows the colon in its name ("" when there is no colon)."""

    def prepare(self, image: Image.Image) -> Tensor:
        """Turn one RGB picture into the model's input; called from decoding threads.  -> [3, H, W]"""
        raise MissingInput(f"encoder {self.name!r} takes no images")

    def prepare_source(self, source: ImageSource) -> Tensor:
        """Open a picture and turn it into the model's input; called from decoding threads.  -> [3, H, W]

        Raises
        ------
        ImageError
            when it cannot be read.
        """
        return self.prepare(open_image(source))

    def encode_prepared(self, batch: Tensor) -> Tensor:
        """Embed a batch of prepared pictures.  [n, 3, H, W] -> [n, D]"""
        raise MissingInput(f"encoder {self.name!r} takes no images")

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Embed pictures.  n RGB pictures -> [n, D]"""
        if not images:
            return torch.zeros(0, self.dim)
        return self.encode_prepared(torch.stack([self.prepare(image) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts.  n strings -> [n, D]"""
        raise MissingInput(f"encoder {self.name!r} takes no text; use lite, clip:... or st:...")

    def body(self) -> Body:
        """Return the network for pictures as a function of its weights, to train them further."""
        raise MissingInput(f"encoder {self.name!r} cannot be trained further; use lite, timm:... or clip:...")

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Put other values into some of the tensors of `body`; whoever does so answers for the fingerprint."""
        raise MissingInput(f"encoder {self.name!r} cannot be trained further; use lite, timm:... or clip:...")


def load_encoder(name: str = "lite", device: str = "auto") -> Encoder:
    """Load an encoder by name, e.g. `lite`, `clip:ViT-B-32/openai`, `timm:resnet18`, `st:all-MiniLM-L6-v2`.

    Raises
    ------
    UnknownName
        when no plugin registers the part before the colon.
    MissingInput
        for the name that stands for an unknown encoder in an index of imported embeddings.
    WeightsMissing
        when the weights are not on this machine; the message says what to download and where to put it.
    InvalidOption
        for a device that is not there.
    """
    from fewshot.registry import registry

    if name == IMPORTED:
        what = "which encoder made the imported embeddings of this index is not known"
        raise MissingInput(f"{what}; import them again with --encoder NAME")
    prefix, _, spec = name.partition(":")
    return registry().encoder(prefix).create(spec, pick_device(device))
