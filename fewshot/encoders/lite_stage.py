"""lite:stageN: where in a picture what was seen, from a middle stage of EfficientNet-Lite0; pictures only.

The usual features are averaged over the whole picture, which forgets the places of strokes and parts. A stage's maps
keep them, and suit drawings, signs and characters; averages over 3 x 3 places forgive small shifts. Compare them
centred, as `simpleshot` does, since most of such an embedding is what all pictures share.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fewshot.arrays import unit
from fewshot.encoders import Encoder, lite_image
from fewshot.encoders.numerics import exact, fetched
from fewshot.encoders.weights import fingerprint
from fewshot.errors import unknown

WINDOW = 3  # places a side of the averages
SIDES = {5: 14, 6: 7, 7: 7}  # places a side of each stage's maps; earlier stages would make 31,000 numbers and more


class StageEncoder(Encoder):
    """The maps of one stage of `lite`'s network, averaged over windows that overlap, flattened."""

    prefix = "lite"
    about = "maps of a middle stage of EfficientNet-Lite0, for drawings: lite:stage5, lite:stage6, lite:stage7"
    modalities = frozenset({"image"})

    def __init__(self, spec: str, device: torch.device) -> None:
        names = {f"stage{number}": number for number in SIDES}
        if spec not in names:
            raise unknown("variant of lite", spec, [*names, "fast", "bf16"])
        self.name = f"lite:{spec}"
        self.device = device
        self._stage = names[spec]
        self._image = lite_image.load(device)
        self.dim = lite_image.STAGES[self._stage - 1][-1] * (SIDES[self._stage] - WINDOW + 1) ** 2
        parts = lite_image.SHA256, self._stage, WINDOW
        self.fingerprint = fingerprint("lite", *parts, "stage maps, largest centre square, bicubic, float32")

    @classmethod
    def create(cls, spec: str, device: torch.device) -> StageEncoder:
        """Load the network for `stage5`, `stage6` or `stage7`.

        Raises
        ------
        UnknownName
            for another variant.
        WeightsMissing
            when the package is not installed or its weight file is damaged.
        """
        return cls(spec, device)

    def prepare(self, image: Image.Image) -> Tensor:
        """Cut and scale a picture.  -> [3, 224, 224] uint8"""
        return lite_image.prepare(image)

    def encode_prepared(self, batch: Tensor) -> Tensor:
        """Embed prepared pictures.  [n, 3, 224, 224] uint8 -> [n, D]"""
        with exact():
            maps = F.avg_pool2d(self._image.maps(batch, self._stage), WINDOW, stride=1)  # [n, channels, side, side]
            embeddings = unit(maps.flatten(1))  # [n, D]
        return fetched(embeddings)
