"""Pictures of every kind come out as upright 8-bit RGB; everything else as an ImageError with a reason."""

import io
import os
import shutil
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from skimage import data

from fewshot.errors import DataError, ImageError
from fewshot.images import BLOCKS, content_hash, find_images, memory_kept, open_image

CAT = Image.fromarray(data.chelsea())  # 451 x 300 RGB


def as_bytes(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey_ramp(deep: bool) -> np.ndarray:
    ramp = np.linspace(0, 1, 64)[None].repeat(8, 0)
    return (ramp * 65535).astype(np.uint16) if deep else (ramp * 255).astype(np.uint8)


def test_path_bytes_image_and_array_give_the_same_pixels(tmp_path):
    path = tmp_path / "cät 1.png"
    CAT.save(path)
    want = data.chelsea()
    for source in (path, str(path), path.read_bytes(), CAT, want):
        image = open_image(source)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), want)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_honoured(orientation):
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[:10, :15] = 255  # a white corner tells all eight apart
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = as_bytes(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(np.asarray(open_image(content)), upright)


def test_damaged_exif_does_not_cost_the_picture():
    content = as_bytes(CAT, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert open_image(content).size == CAT.size


def test_alpha_is_composited_on_white():
    layer = np.zeros((4, 4, 4), np.uint8)
    layer[..., 0] = 200
    layer[:2, :, 3] = 255
    layer[2, :, 3] = 51  # a fifth
    for source in (as_bytes(Image.fromarray(layer), "PNG"), Image.fromarray(layer), layer):
        got = np.asarray(open_image(source))
        assert got[0, 0].tolist() == [200, 0, 0]
        assert got[3, 0].tolist() == [255, 255, 255]
        assert np.abs(got[2, 0].astype(int) - [244, 204, 204]).max() <= 1


def test_palette_with_transparency_in_bytes():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, 0, 0, 255] + [0] * 762)
    content = as_bytes(image, "PNG", transparency=b"\x00\xff")
    assert np.asarray(open_image(content))[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes_keep_the_picture(mode):
    via = CAT.convert("RGB").convert(mode)
    got = open_image(via)
    assert (got.mode, got.size) == ("RGB", CAT.size)
    small = [np.asarray(image.convert("L").resize((32, 32)), float).ravel() for image in (got, CAT)]  # undoes dither
    assert np.corrcoef(*small)[0, 1] > 0.95


def test_cmyk_jpeg():
    got = np.asarray(open_image(as_bytes(CAT.convert("CMYK"), "JPEG", quality=95)), float)
    assert np.abs(got - data.chelsea()).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled(kind):
    content = as_bytes(Image.fromarray(grey_ramp(deep=True)), kind)
    assert np.abs(np.asarray(open_image(content))[..., 0].astype(int) - grey_ramp(deep=False)).max() <= 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_deep_tiffs(dtype):
    ramp = grey_ramp(deep=True).astype(dtype)
    content = as_bytes(Image.fromarray(ramp), "TIFF")
    assert np.abs(np.asarray(open_image(content))[..., 0].astype(int) - grey_ramp(deep=False)).max() <= 1


def test_first_frame_of_an_animation():
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for kind in ("GIF", "WEBP", "TIFF"):
        content = as_bytes(red, kind, save_all=True, append_images=[blue])
        pixel = np.asarray(open_image(content))[4, 4].astype(int)
        assert np.abs(pixel - [255, 0, 0]).max() < 6, kind


def test_arrays():
    grey = data.camera()[:50, :60]
    assert np.array_equal(np.asarray(open_image(grey))[..., 1], grey)
    assert np.array_equal(np.asarray(open_image(grey[..., None]))[..., 2], grey)
    assert np.array_equal(np.asarray(open_image(grey / 255.0))[..., 0], grey)
    assert np.array_equal(np.asarray(open_image(grey.astype(np.uint16) * 257))[..., 0], grey)
    assert np.array_equal(np.asarray(open_image(grey > 99))[..., 0], (grey > 99) * np.uint8(255))
    for bad in (grey.astype(float), grey.astype(int), np.zeros((3, 4, 5), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ImageError, match="array"):
            open_image(bad)


def test_the_content_tells_the_format_not_the_suffix(tmp_path):
    path = tmp_path / "really a png.jpg"
    CAT.save(path, "PNG")
    assert np.array_equal(np.asarray(open_image(path)), data.chelsea())


def bomb() -> bytes:
    """A PNG header that claims 20,000 x 20,000 pixels, and hardly any data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def test_bad_files_say_why(tmp_path):
    whole = as_bytes(CAT, "JPEG")
    cases = {
        "truncated.jpg": (whole[: len(whole) // 2], "truncated"),
        "empty.jpg": (b"", "empty file"),
        "text.jpg": (b"this is no picture at all", "not a picture"),
        "bomb.png": (bomb(), "more than 200 megapixels"),
        "header only.png": (as_bytes(CAT, "PNG")[:40], "damaged|truncated|not a picture"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a picture"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=reason) as caught:
            open_image(tmp_path / name)
        assert name in str(caught.value)
        assert name not in caught.value.reason
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match="folder"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="empty file"):
        open_image(b"")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a file"):
        open_image(tmp_path / "pipe.jpg")


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "secret.jpg"
    CAT.save(path)

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match="no permission"):
        open_image(path)


def test_large_pictures_up_to_the_limit_pass_in_silence(monkeypatch):
    monkeypatch.setattr("fewshot.images.MAX_PIXELS", CAT.width * CAT.height)
    assert open_image(as_bytes(CAT, "PNG")).size == CAT.size  # Pillow would warn here, and warnings are errors
    monkeypatch.setattr("fewshot.images.MAX_PIXELS", CAT.width * CAT.height - 1)
    for source in (as_bytes(CAT, "PNG"), CAT, data.chelsea()):
        with pytest.raises(ImageError, match="megapixels"):
            open_image(source)


def test_global_state_of_pillow_and_warnings_survives_threads():
    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    contents = [as_bytes(CAT, "JPEG"), b"no picture", bomb()] * 20

    def attempt(content):
        try:
            return open_image(content).size
        except ImageError as error:
            return error.reason

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(attempt, contents)) == [CAT.size, "not a picture", "more than 200 megapixels"] * 20
    assert (before, filters, ImageFile.LOAD_TRUNCATED_IMAGES) == (Image.MAX_IMAGE_PIXELS, warnings.filters, False)


def test_pillow_keeps_memory_for_as_long_as_asked():
    core = Image.core
    before = core.get_block_size(), core.get_blocks_max()
    picture = Image.fromarray(data.astronaut()).resize((2000, 1600))
    with memory_kept(3):
        assert core.get_blocks_max() == 3 * BLOCKS
        with memory_kept():  # as two streams at once
            pass
        assert core.get_blocks_max() == 3 * BLOCKS
        kept = np.asarray(picture.rotate(90))
        assert core.get_stats()["blocks_cached"] > 0
        np.testing.assert_array_equal(np.asarray(picture.rotate(90)), kept)
    assert (core.get_block_size(), core.get_blocks_max()) == before
    assert core.get_stats()["blocks_cached"] == 0


def test_content_hash_is_of_the_bytes(tmp_path):
    first, second, third = tmp_path / "a.png", tmp_path / "b b.png", tmp_path / "c.png"
    CAT.save(first)
    shutil.copy(first, second)
    CAT.transpose(Image.Transpose.ROTATE_90).save(third)
    assert content_hash(first) == content_hash(second) == content_hash(first.read_bytes()) != content_hash(third)


def test_find_images_is_recursive_sorted_and_ends_in_loops(tmp_path):
    names = ["b/x.JPG", "b/deep/er/y.png", "a.webp", "ünï cödé/z z.tiff", ".hidden/n.jpg", "b/._x.jpg", "notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a-link").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    want = [tmp_path / n for n in ("a.webp", "b/deep/er/y.png", "b/x.JPG", "self.jpg", "ünï cödé/z z.tiff")]
    assert find_images([tmp_path]) == find_images(tmp_path) == want
    explicit = tmp_path / "notes.txt"
    assert find_images([tmp_path, explicit, tmp_path / "a.webp"]) == sorted([*want, explicit])


def test_linked_folders_are_searched(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    (tmp_path / "far" / "x.jpg").write_bytes(b"x")
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    assert find_images(tmp_path / "near") == [tmp_path / "near" / "link" / "x.jpg"]


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        find_images(Path(tmp_path / "nowhere"))
