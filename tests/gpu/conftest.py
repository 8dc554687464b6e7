"""Everything here runs on a CUDA GPU, and is skipped where there is none."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

from tiny_models import clip_file, timm_file

__all__ = ["clip_file", "timm_file"]


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Six cuts from three photographs."""
    whole = [Image.fromarray(pixels) for pixels in (data.astronaut(), data.cat(), data.coffee())]
    return [*whole, *(photo.crop((40, 30, 290, 260)) for photo in whole)]


@pytest.fixture
def folder(photos: list[Image.Image], tmp_path: Path) -> Path:
    """Two classes of photographs, 12 in each, no two alike."""
    root = tmp_path / "photos"
    for number in range(24):
        place = root / ("person", "cup")[number % 2] / f"{number:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        photo = photos[0 if number % 2 == 0 else 2]
        photo.crop((number, number, 200 + 4 * number, 220)).resize((96, 96)).save(place)
    return root
