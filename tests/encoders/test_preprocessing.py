"""The two halves together are the transform that they were cut from, bit for bit, and nothing else is cut."""

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from skimage import data
from timm.data import create_transform
from torchvision import transforms

from fewshot.encoders.preprocessing import Preprocessing
from fewshot.encoders.scaled_centre import ScaledCentre

PHOTO = Image.fromarray(data.coffee())
CPU = torch.device("cpu")
CUT = {
    "clip": open_clip.image_transform(64, is_train=False, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)),
    "clip, squashed": open_clip.image_transform(64, is_train=False, resize_mode="squash", interpolation="bilinear"),
    "clip, the whole picture": open_clip.image_transform(64, is_train=False, resize_mode="longest"),
    "timm": create_transform(
        **timm.data.resolve_model_data_config(timm.create_model("test_resnet")), is_training=False
    ),
}
CENTRES = {"clip", "clip, squashed", "timm"}
WHOLE = {
    "no normalisation": transforms.Compose([transforms.Resize((8, 8)), transforms.ToTensor()]),
    "something behind it": transforms.Compose(
        [transforms.Resize((8, 8)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5), torch.neg]
    ),
    "a function": lambda image: torch.full((3, 2, 2), image.width),
}


@pytest.mark.parametrize("name", CUT)
def test_bytes_come_first(name: str) -> None:
    cut = Preprocessing.of(CUT[name])
    assert isinstance(cut.to_pixels, ScaledCentre) == (name in CENTRES)
    pixels = torch.stack([cut.to_pixels(PHOTO), cut.to_pixels(PHOTO.rotate(90))])
    assert pixels.dtype == torch.uint8
    before = pixels.clone()
    assert torch.equal(cut.normalise(pixels, CPU), torch.stack([CUT[name](PHOTO), CUT[name](PHOTO.rotate(90))]))
    assert torch.equal(pixels, before)


def test_centres_are_torchvisions() -> None:
    rng, compared = np.random.default_rng(0), 0
    for _ in range(300):
        width, height, size, other, *crop = rng.integers(1, 90, 6).tolist()
        steps = [transforms.Resize(size if rng.random() < 0.6 else (size, other), random_mode(rng))]
        if rng.random() < 0.7:
            steps += [transforms.CenterCrop(crop if rng.random() < 0.5 else crop[0])]
        found = ScaledCentre.of(steps)
        picture = PHOTO.crop((100, 100, 100 + width, 100 + height))
        if found is not None and max(width, height) * size < 90 * 90 * min(width, height):
            wanted = transforms.Compose([*steps, transforms.PILToTensor()])(picture)
            assert torch.equal(found(picture), wanted), (picture, steps)
            assert torch.equal(found(picture.convert("RGBA")), wanted)
            compared += 1
    assert compared > 100


def random_mode(rng: np.random.Generator) -> transforms.InterpolationMode:
    return list(transforms.InterpolationMode)[rng.integers(len(transforms.InterpolationMode))]


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [transforms.CenterCrop(8)],
        [transforms.Resize(8), transforms.CenterCrop(9)],  # black around it
        [transforms.Resize((8, 12)), transforms.CenterCrop((9, 12))],
        [transforms.Resize(8, max_size=9)],
        [transforms.Resize(8, transforms.InterpolationMode.NEAREST_EXACT)],
        [transforms.Resize(8), transforms.RandomCrop(8)],
        [transforms.Resize(8), transforms.Grayscale(3)],
        [transforms.Resize(8), open_clip.transform.MaybeConvertMode("L")],
    ],
)
def test_what_is_no_such_centre(steps: list[object]) -> None:
    assert ScaledCentre.of(steps) is None


@pytest.mark.parametrize("name", WHOLE)
def test_other_transforms_stay_whole(name: str) -> None:
    cut = Preprocessing.of(WHOLE[name])
    assert torch.equal(cut.normalise(cut.to_pixels(PHOTO)[None], CPU)[0], WHOLE[name](PHOTO))
