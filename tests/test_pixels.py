"""JPEG files decoded straight into arrays, against the same files through PIL."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from fewshot.images import open_image
from fewshot.pixels import large_jpeg, pixels_of, upright

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


@pytest.mark.parametrize("kind", ["subsampled", "full chroma", "progressive", "RGB inside"])
def test_pixels_are_those_of_pil(kind: str) -> None:
    pixels = large_jpeg(KINDS[kind], 387)
    assert (pixels.width, pixels.height, pixels.orientation) == (501, 387, 1)
    assert np.array_equal(pixels.rows.numpy(), np.asarray(open_image(KINDS[kind])))


def test_what_is_no_large_colour_jpeg_is_left(tmp_path) -> None:
    whole = KINDS["subsampled"]
    assert large_jpeg(whole, 388) is None
    for kind in ("grey", "CMYK", "PNG", "PNG with alpha"):
        assert large_jpeg(KINDS[kind], 0) is None, kind
    for bad in (b"", b"not a picture", whole[:300], whole[: len(whole) // 2], PHOTO, np.asarray(PHOTO)):
        assert large_jpeg(bad, 0) is None
    assert large_jpeg(tmp_path / "nowhere.jpg", 0) is None


def test_damage_is_left_and_not_printed(capfd) -> None:
    content = bytearray(KINDS["subsampled"])
    content[len(content) // 2 : len(content) // 2 + 8] = b"\xff\xd0" * 4  # restarts that are not expected
    open_image(bytes(content))  # passes over it
    assert large_jpeg(bytes(content), 0) is None
    assert capfd.readouterr().err == ""


def test_a_path_is_read(tmp_path) -> None:
    path = tmp_path / "a b.jpg"
    path.write_bytes(KINDS["subsampled"])
    want = np.asarray(open_image(path))
    for source in (path, str(path)):
        assert np.array_equal(large_jpeg(source, 0).rows.numpy(), want)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_turns_as_pil_does(orientation: int) -> None:
    content = turned(orientation)
    pixels = large_jpeg(content, 0)
    planes = upright(pixels.rows.permute(2, 0, 1), pixels.orientation)
    assert np.array_equal(planes.permute(1, 2, 0).numpy(), np.asarray(open_image(content)))


@pytest.mark.parametrize(("side", "scale"), [(0, 1), (193, 2), (194, 1), (96, 4), (48, 8), (5, 8)])
def test_a_reduced_scale_keeps_enough_pixels(side: int, scale: int) -> None:
    pixels = large_jpeg(KINDS["subsampled"], 0, side)
    assert (pixels.width, pixels.height) == (501 / scale, 387 / scale)
    assert pixels.rows.shape == (-(-387 // scale), -(-501 // scale), 3)
    blocks = np.asarray(PHOTO.reduce(scale), int)  # the mean of each block
    assert np.abs(pixels.rows.numpy()[: len(blocks), : blocks.shape[1]] - blocks).mean() < 4


def test_pixels_of_a_picture_share_nothing_with_it() -> None:
    picture = PHOTO.copy()
    pixels = pixels_of(picture).rows
    picture.paste("black", (0, 0, *picture.size))
    assert torch.equal(pixels, torch.from_numpy(np.array(PHOTO)))


def test_pixels_that_are_copied_a_few_rows_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr("fewshot.pixels.BAND", 100)
    assert np.array_equal(pixels_of(PHOTO).rows.numpy(), np.asarray(PHOTO))
