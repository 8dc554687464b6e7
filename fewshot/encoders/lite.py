"""lite: the embedded default. EfficientNet-Lite0 and MiniLM joined by the classes of ImageNet; needs no download."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from fewshot.arrays import unit
from fewshot.datasets import ImageSource
from fewshot.encoders import Encoder, conse, lite_body, lite_half, lite_image, lite_runtime, lite_text, synthesis
from fewshot.encoders.body import Body
from fewshot.encoders.lite_square import LARGE, TORCH_SQUARE, prepare_pixels
from fewshot.encoders.lite_stage import StageEncoder
from fewshot.encoders.numerics import exact, fetched
from fewshot.encoders.weights import fingerprint
from fewshot.hookspecs import hookimpl
from fewshot.pixels import large_jpeg, pixels_of

TEXT_SHARE = 0.1  # of a picture's squared norm; the visual block has the rest
LOOKS = 1.5  # length of the look of a text that resembles one ImageNet class, beside a place of length 1
REDUCE = {"fast": 12, "bf16": 4}  # a reduced scale leaves at least this many times the network's side
PIECE = 4  # pictures that torch takes at a time on a CPU: what lies between two layers then stays in the cache


class LiteEncoder(Encoder):
    """Two blocks side by side: what a picture looks like [1280], and where it lies in text space [384].

    ImageNet's 1,000 classes are the bridge, both ways: a picture lies where the words for its likeliest classes lie
    (`conse`), and a text looks like the classes whose words lie near it (`synthesis`). A text that resembles none of
    them has a small visual block.

    `lite` is exact. `lite:fast` opens and resizes large pictures faster, and decodes the largest JPEG pictures at a
    reduced scale; `lite:bf16` does so with smaller ones and computes in bfloat16, but for the first layers. Each has a
    fingerprint of its own.
    """

    prefix = "lite"
    about = "EfficientNet-Lite0 + MiniLM joined by ImageNet; the default, works offline; lite:fast for large pictures"
    dim = lite_image.FEATURES + lite_text.DIM
    templates = ("{}", "a {}", "a photo of a {}.")
    not_for_preparing = ("_text", "_graph")
    modes: ClassVar[dict[str, str]] = {"": "float32", "fast": "float32", "bf16": lite_half.NUMERICS}

    def __init__(self, device: torch.device, mode: str = "") -> None:
        self.name = f"lite:{mode}" if mode else "lite"
        self.device = device
        state = lite_image.state_dict()
        network = lite_image.build(state, device)
        self._image: lite_image.Network
        self._image = run = lite_half.halve(network, state) if mode == "bf16" else network
        self._graph: Callable[[Tensor], Tensor] | None = None  # the whole, in a faster runtime
        self._looks = synthesis.class_looks(network.classifier[0].cpu())  # [1000, 1280]
        self._text = lite_text.load(device)
        self._bridge = conse.load(self._text, lite_text.SHA256)
        self._images = dataclasses.replace(self._bridge, places=self._bridge.places.to(device))  # where pictures are
        if device.type == "cpu":
            self._graph = lite_runtime.compiled(run, self._bridge.places, TEXT_SHARE)
        weights = lite_image.SHA256, lite_text.SHA256, lite_text.TOKENIZER_SHA256
        parts = *weights, self._bridge.digest, TEXT_SHARE, synthesis.SHARPNESS, LOOKS
        numerics = "largest centre square, bicubic, float32"
        self._smallest_side = 0
        if mode:
            self._smallest_side = REDUCE[mode] * lite_image.SIZE
            numerics = f"{mode}: decoded to {self._smallest_side} or more, {TORCH_SQUARE}, {self.modes[mode]}"
        self.fingerprint = fingerprint(f"lite-{mode}" if mode else "lite", *parts, numerics)

    @classmethod
    def create(cls, spec: str, device: torch.device) -> Encoder:
        """Load both networks from their packages, or a variant: `fast`, `bf16`, `stage5`, `stage6`, `stage7`.

        Raises
        ------
        UnknownName
            for another variant.
        WeightsMissing
            when a package is not installed or a weight file is damaged.
        """
        return cls(device, spec) if spec in cls.modes else StageEncoder.create(spec, device)

    def prepare(self, image: Image.Image) -> Tensor:
        """Cut and scale a picture.  -> [3, 224, 224] uint8"""
        if self._smallest_side and min(image.size) >= LARGE:
            return prepare_pixels(pixels_of(image))
        return lite_image.prepare(image)

    def prepare_source(self, source: ImageSource) -> Tensor:
        """Open, cut and scale a picture.  -> [3, 224, 224] uint8"""
        pixels = large_jpeg(source, LARGE, self._smallest_side) if self._smallest_side else None
        return prepare_pixels(pixels) if pixels else super().prepare_source(source)

    def encode_prepared(self, batch: Tensor) -> Tensor:
        """Embed prepared pictures.  [n, 3, 224, 224] uint8 -> [n, D]"""
        if self._graph is not None:
            return self._graph(batch)
        pieces = batch.split(PIECE if self.device.type == "cpu" else 512)
        with exact():
            both = torch.cat([self._embed(piece) for piece in pieces])
        return fetched(both)

    def _embed(self, pixels: Tensor) -> Tensor:
        features, logits = self._image(pixels)  # [n, 1280], [n, 1000]
        visual = unit(features) * math.sqrt(1 - TEXT_SHARE)
        return torch.cat([visual, self._images.place_images(logits) * math.sqrt(TEXT_SHARE)], -1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Say what texts look like, and place them.  -> [n, D]"""
        if not texts:
            return torch.zeros(0, self.dim)
        places = self._bridge.place_texts(self._text(texts))  # [n, 384]
        looks = synthesis.look(places, self._bridge.places, self._looks)  # [n, 1280]
        return unit(torch.cat([LOOKS * looks, places], -1))

    def body(self) -> Body:
        """Return EfficientNet-Lite0 up to its features: the visual block before it is scaled."""
        return lite_body.body(lite_image.load(self.device))

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Change the visual block, which tells nothing of texts then.

        The other block goes on to come from the network as it was, and so fits the texts.
        """
        self._image, self._graph = lite_body.Tuned.of(lite_image.load(self.device), tensors), None
        self._looks = torch.zeros_like(self._looks)


@hookimpl
def register_encoders(register: Callable[[type[Encoder]], None]) -> None:
    """Register `lite`."""
    register(LiteEncoder)
