"""JPEG files decoded straight into arrays, against the same files through PIL."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from fewshot.errors import ImageError
from fewshot.images import open_image
from fewshot.pixels import open_pixels, pixels_of, upright

PHOTO = Image.fromarray(data.astronaut()).crop((0, 0, 501, 387))  # odd sides: blocks of chroma are cut


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(PHOTO, quality=90, exif=exif)


KINDS = {
    "subsampled": encoded(PHOTO, quality=85),
    "full chroma": encoded(PHOTO, quality=95, subsampling=0),
    "progressive": encoded(PHOTO, quality=85, progressive=True),
    "RGB inside": encoded(PHOTO, quality=85, keep_rgb=True),
    "grey": encoded(PHOTO.convert("L"), quality=85),
    "CMYK": encoded(PHOTO.convert("CMYK"), quality=85),
    "PNG": encoded(PHOTO, "PNG"),
    "PNG with alpha": encoded(PHOTO.convert("RGBA"), "PNG"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_pil(kind: str) -> None:
    pixels = open_pixels(KINDS[kind])
    assert (pixels.width, pixels.height, pixels.orientation) == (501, 387, 1)
    assert np.array_equal(pixels.rows.numpy(), np.asarray(open_image(KINDS[kind])))


def test_path_bytes_and_image_give_the_same_pixels(tmp_path) -> None:
    path = tmp_path / "a b.jpg"
    path.write_bytes(KINDS["subsampled"])
    want = np.asarray(open_image(path))
    for source in (path, str(path), path.read_bytes(), Image.open(path), want):
        assert np.array_equal(open_pixels(source).rows.numpy(), want)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_turns_as_pil_does(orientation: int) -> None:
    content = turned(orientation)
    pixels = open_pixels(content)
    planes = upright(pixels.rows.permute(2, 0, 1), pixels.orientation)
    assert np.array_equal(planes.permute(1, 2, 0).numpy(), np.asarray(open_image(content)))


@pytest.mark.parametrize(("side", "scale"), [(0, 1), (193, 2), (194, 1), (96, 4), (48, 8), (5, 8)])
def test_a_reduced_scale_keeps_enough_pixels(side: int, scale: int) -> None:
    pixels = open_pixels(KINDS["subsampled"], side)
    assert (pixels.width, pixels.height) == (501 / scale, 387 / scale)
    assert pixels.rows.shape == (-(-387 // scale), -(-501 // scale), 3)
    blocks = np.asarray(PHOTO.reduce(scale), int)  # the mean of each block
    assert np.abs(pixels.rows.numpy()[: len(blocks), : blocks.shape[1]] - blocks).mean() < 4


def test_only_jpeg_files_are_reduced() -> None:
    assert open_pixels(KINDS["PNG"], 50).rows.shape == (387, 501, 3)
    assert open_pixels(PHOTO, 50).rows.shape == (387, 501, 3)


def test_what_cannot_be_read_is_told_as_pil_tells_it(tmp_path) -> None:
    whole = KINDS["subsampled"]
    for bad in (b"", b"not a picture", whole[:300], whole[: len(whole) // 2]):
        with pytest.raises(ImageError) as want:
            open_image(bad)
        with pytest.raises(ImageError) as got:
            open_pixels(bad)
        assert got.value.reason == want.value.reason
    path = tmp_path / "half.jpg"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"half\.jpg"):
        open_pixels(path)
    with pytest.raises(ImageError, match="nowhere"):
        open_pixels(tmp_path / "nowhere.jpg")


def test_damage_within_is_passed_over_as_pil_does(capfd) -> None:
    content = bytearray(KINDS["subsampled"])
    content[len(content) // 2] ^= 0xFF
    try:
        want = np.asarray(open_image(bytes(content)))
    except ImageError:
        pytest.fail("choose a byte that PIL passes over")
    assert np.array_equal(open_pixels(bytes(content)).rows.numpy(), want)
    assert capfd.readouterr().err == ""


def test_pixels_of_a_picture_share_nothing_with_it() -> None:
    picture = PHOTO.copy()
    pixels = pixels_of(picture).rows
    picture.paste("black", (0, 0, *picture.size))
    assert torch.equal(pixels, torch.from_numpy(np.array(PHOTO)))
