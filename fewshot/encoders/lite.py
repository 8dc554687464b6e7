"""lite: the embedded default. EfficientNet-Lite0 for pictures, MiniLM for texts, joined by ConSE; needs no download."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from fewshot.arrays import unit
from fewshot.encoders import Encoder, conse, lite_body, lite_image, lite_text
from fewshot.encoders.body import Body
from fewshot.encoders.lite_stage import StageEncoder
from fewshot.encoders.numerics import exact
from fewshot.encoders.weights import fingerprint
from fewshot.hookspecs import hookimpl

TEXT_SHARE = 0.1  # of a picture's squared norm; the visual block has the rest


class LiteEncoder(Encoder):
    """Two blocks side by side: what a picture looks like [1280], and where it lies in text space [384].

    A text has zeros in the visual block. So pictures compare by both blocks, and a text with a picture by the second:
    their cosine is at most sqrt(0.1) = 0.32, about the range of CLIP's.
    """

    prefix = "lite"
    about = "EfficientNet-Lite0 + MiniLM joined by ConSE; the default, works offline; lite:stage6 for drawings"
    dim = lite_image.FEATURES + lite_text.DIM
    templates = ("{}", "a {}", "a photo of a {}.")

    def __init__(self, device: torch.device) -> None:
        self.name = "lite"
        self.device = device
        self._image: lite_image.Network = lite_image.load(device)
        self._text = lite_text.load(device)
        self._bridge = conse.load(self._text, lite_text.SHA256)
        parts = lite_image.SHA256, lite_text.SHA256, lite_text.TOKENIZER_SHA256, self._bridge.digest, TEXT_SHARE
        self.fingerprint = fingerprint("lite", *parts, "largest centre square, bicubic, float32")

    @classmethod
    def create(cls, spec: str, device: torch.device) -> Encoder:
        """Load both networks from their packages, or a variant: `stage5`, `stage6`, `stage7`.

        Raises
        ------
        UnknownName
            for another variant.
        WeightsMissing
            when a package is not installed or a weight file is damaged.
        """
        return StageEncoder.create(spec, device) if spec else cls(device)

    def prepare(self, image: Image.Image) -> Tensor:
        """Cut and scale a picture.  -> [3, 224, 224] uint8"""
        return lite_image.prepare(image)

    def encode_prepared(self, batch: Tensor) -> Tensor:
        """Embed prepared pictures.  [n, 3, 224, 224] uint8 -> [n, D]"""
        with exact():
            features, logits = self._image(batch)  # [n, 1280], [n, 1000]
            visual = unit(features) * math.sqrt(1 - TEXT_SHARE)
            both = torch.cat([visual, self._bridge.place_images(logits) * math.sqrt(TEXT_SHARE)], -1).cpu()
        return both.clone()

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Place texts in the second block.  -> [n, D]"""
        if not texts:
            return torch.zeros(0, self.dim)
        places = self._bridge.place_texts(self._text(texts))  # [n, 384]
        return torch.cat([torch.zeros(len(texts), lite_image.FEATURES), places], -1)

    def body(self) -> Body:
        """Return EfficientNet-Lite0 up to its features: the visual block before it is scaled."""
        return lite_body.body(lite_image.load(self.device))

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Change the visual block; the other one goes on to come from the network as it was, and so fits the texts."""
        self._image = lite_body.Tuned.of(lite_image.load(self.device), tensors)


@hookimpl
def register_encoders(register: Callable[[type[Encoder]], None]) -> None:
    """Register `lite`."""
    register(LiteEncoder)
