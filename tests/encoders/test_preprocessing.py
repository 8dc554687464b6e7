"""The two halves together are the transform that they were cut from, bit for bit, and nothing else is cut."""

import open_clip
import pytest
import timm
import torch
from PIL import Image
from skimage import data
from timm.data import create_transform
from torchvision import transforms

from fewshot.encoders.preprocessing import Preprocessing

PHOTO = Image.fromarray(data.coffee())
CPU = torch.device("cpu")
CUT = {
    "clip": open_clip.image_transform(64, is_train=False, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)),
    "clip, squashed": open_clip.image_transform(64, is_train=False, resize_mode="squash", interpolation="bilinear"),
    "timm": create_transform(
        **timm.data.resolve_model_data_config(timm.create_model("test_resnet")), is_training=False
    ),
}
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
    pixels = torch.stack([cut.to_pixels(PHOTO), cut.to_pixels(PHOTO.rotate(90))])
    assert pixels.dtype == torch.uint8
    before = pixels.clone()
    assert torch.equal(cut.normalise(pixels, CPU), torch.stack([CUT[name](PHOTO), CUT[name](PHOTO.rotate(90))]))
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("name", WHOLE)
def test_other_transforms_stay_whole(name: str) -> None:
    cut = Preprocessing.of(WHOLE[name])
    assert torch.equal(cut.normalise(cut.to_pixels(PHOTO)[None], CPU)[0], WHOLE[name](PHOTO))
