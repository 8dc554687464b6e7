"""Find, open and hash pictures; whatever a picture is like, it comes out as upright 8-bit RGB or as an ImageError."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fewshot.as_rgb import on_white, scaled
from fewshot.datasets import ImageSource
from fewshot.errors import ImageError
from fewshot.names import is_escaped
from fewshot.slabs import slabs_kept
from fewshot.turns import wait_for_turn
from fewshot.walk import walk

MAX_PIXELS = 200_000_000  # larger pictures are refused before they are decoded
TOO_LARGE = f"more than {MAX_PIXELS // 1_000_000} megapixels"
ORIENTATION = 0x0112  # the EXIF tag
REFUSED = {"EPS", "WMF"}  # formats that would start another program
BLOCK, BLOCKS = 1 << 20, 64  # bytes, and number a worker, of the blocks of memory that Pillow keeps


def find_images(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Return the pictures under files and folders, sorted by path, each once.

    Folders are searched to any depth for files with the suffix of a picture; names that start with a dot are left out;
    links to folders are followed, each folder once, so loops end. A file that is given explicitly is always included.

    Raises
    ------
    DataError
        when one of the paths does not exist or cannot be listed.
    """
    roots = [paths] if isinstance(paths, str | Path) else list(paths)
    return [Path(path) for path in sorted({found.path for root in roots for found in walk(root)})]


def open_image(source: ImageSource) -> Image.Image:
    """Open a picture as 8-bit RGB, turned as its EXIF data say.

    Takes a path, the bytes of a file, a PIL image or an array `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]` (uint8,
    uint16, bool, or floats in [0, 1]). Alpha is composited on white, 16 bits are scaled to 8, and of an animation the
    first frame is taken. The format is told by the content, not by the suffix.

    Raises
    ------
    ImageError
        with a short `reason`, when there is no picture or it is damaged, unreadable or above 200 megapixels.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, str | Path):
        try:
            return open_image(read_file(source))
        except ImageError as error:
            raise ImageError(error.reason, str(source)) from error.__cause__
    try:
        with pillow_at_ease():
            return _rgb(_identify(source) if isinstance(source, bytes) else source)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(TOO_LARGE) from error
    except UnidentifiedImageError as error:
        raise ImageError("not a picture") from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it") from error
    except Exception as error:  # on damaged files Pillow's decoders raise anything
        raise ImageError(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def read_file(path: str | Path) -> bytes:
    """Return the content of a file.

    Raises
    ------
    ImageError
        when it is empty, missing, a folder, or may not be read.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for its writer
            raise ImageError("a folder that cannot be listed" if stat.S_ISDIR(mode) else "not a file", str(path))
        with open(path, "rb") as file:
            data = file.read()
    except ImageError:
        raise
    except FileNotFoundError as error:
        reason = "its name or a folder's is not Unicode; rename it" if is_escaped(path) else "no such file"
        raise ImageError(reason, str(path)) from error
    except PermissionError as error:
        raise ImageError("no permission to read it", str(path)) from error
    except (OSError, ValueError) as error:
        raise ImageError(getattr(error, "strerror", None) or str(error), str(path)) from error
    if not data:
        raise ImageError("empty file", str(path))
    return data


def content_hash(source: str | Path | bytes) -> str:
    """Return 32 hex digits (BLAKE2b, 128 bits) of the bytes of a file; equal for identical files."""
    data = source if isinstance(source, bytes) else read_file(source)
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@contextmanager
def memory_kept(workers: int = 1) -> Iterator[None]:
    """Keep the memory of large pictures for the next ones, Pillow's and ours, 64 MB of each a worker, until the end.

    Fresh memory has to be cleared by the system first, which costs a third of the time that decoding takes, and more
    where many threads ask for it. Nothing is changed in Pillow where somebody has set it up already, by
    PILLOW_BLOCKS_MAX or an outer call.
    """
    core: Any = vars(Image)["core"]  # the types do not list it
    before = core.get_block_size(), core.get_blocks_max()
    with slabs_kept(workers * BLOCKS * BLOCK):
        if before[1]:
            yield
            return
        core.set_block_size(BLOCK)
        core.set_blocks_max(workers * BLOCKS)
        try:
            yield
        finally:
            core.set_blocks_max(before[1])
            core.set_block_size(before[0])


def _identify(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("empty file")
    Image.init()
    return Image.open(io.BytesIO(data), formats=[name for name in Image.OPEN if name not in REFUSED])


def _rgb(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(TOO_LARGE)
    wait_for_turn(image.width * image.height)
    image.load()
    image = _upright(image)
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith(("I", "F")):
        return scaled(image)
    if image.has_transparency_data:
        return on_white(image)
    return image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """Return how a picture lies, 1 (upright) to 8 as EXIF has it; 1 also where that is damaged."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF data should not cost the picture
        return 1
    return found if found in range(1, 9) else 1


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) if orientation(image) != 1 else image
    except Exception:  # noqa: BLE001 - as above
        return image


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    array = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"an array of shape {pixels.shape} is no picture; give [H, W] or [H, W, 1, 3 or 4]")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = (array // 257).astype(np.uint8)
    elif array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError("an array of floats must lie in [0, 1]; give uint8 for 0..255")
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype} is no picture; give uint8, uint16, bool, or floats in [0, 1]")
    return _rgb(Image.fromarray(np.ascontiguousarray(array)))


_guard = threading.Lock()
_inside = 0
_saved: tuple[int | None, warnings.catch_warnings[None]] | None = None


@contextmanager
def pillow_at_ease() -> Iterator[None]:
    """Hold Pillow's own limit at ours and silence its warnings, for as long as any thread is inside.

    Pillow keeps both in globals of the process, so the first thread in sets them and the last one out restores them.
    """
    global _inside, _saved
    with _guard:
        _inside += 1
        if _inside == 1:
            quiet = warnings.catch_warnings()
            _saved = Image.MAX_IMAGE_PIXELS, quiet
            quiet.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above this and raises above twice this
    try:
        yield
    finally:
        with _guard:
            _inside -= 1
            if _inside == 0 and _saved is not None:
                Image.MAX_IMAGE_PIXELS, quiet = _saved
                quiet.__exit__(None, None, None)
