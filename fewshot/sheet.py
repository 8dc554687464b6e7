"""A contact sheet: one HTML file that holds its thumbnails and needs nothing else."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fewshot.datasets import ImageSource
from fewshot.errors import ImageError, OutputError, OutputExists
from fewshot.images import open_image

SIDE = 192  # pixels, the longer side of a thumbnail
MARK = '<meta name="generator" content="fewshot contact sheet">'


class Section(NamedTuple):
    """A heading and the pictures beneath it, each a path and a caption."""

    title: str
    pictures: Sequence[tuple[str, str]]


class Cell(NamedTuple):
    """What the template draws: `thumbnail` is a data URI, or empty when the picture cannot be read."""

    path: str
    name: str
    caption: str
    thumbnail: str


def render_sheet(headline: str, sections: Sequence[Section]) -> str:
    """Return the page; titles, captions and paths are escaped."""
    import jinja2

    loader = jinja2.PackageLoader("fewshot", "templates")
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("sheet.html")
    small = functools.cache(thumbnail)  # a picture may stand in several sections
    rows = [(title, [Cell(p, Path(p).name, c, small(p)) for p, c in pictures]) for title, pictures in sections]
    return template.render(title=headline, sections=rows, side=SIDE)


def write_sheet(file: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Write the page to `file`, in place of an earlier sheet if there is one, whole or not at all; return its path.

    Raises
    ------
    OutputExists
        when the file is there and is something else.
    OutputError
        when it cannot be written.
    """
    from fewshot.modelfile import replacing

    target = Path(file)
    check_replaceable(target)
    with replacing(target, overwrite=True) as part:
        part.write_text(render_sheet(title, sections), encoding="utf-8", errors="replace")
    return target


def check_replaceable(target: Path) -> None:
    """Make sure that writing a sheet to `target` would destroy nothing but an earlier sheet.

    Raises
    ------
    OutputExists
        when it would.
    OutputError
        when the file cannot be read, or its folder is missing.
    """
    try:
        if target.exists() and MARK not in target.read_bytes()[:1000].decode("utf-8", "replace"):
            raise OutputExists(f"{target} exists and is not a contact sheet; give --html another file")
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {target}: no folder {target.parent}")
    except IsADirectoryError as error:
        raise OutputExists(f"{target} is a folder; give --html a file") from error
    except PermissionError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}; give --html another file") from error


def thumbnail(source: ImageSource) -> str:
    """Return a small JPEG of a picture as a data URI, or "" when it cannot be read."""
    try:
        image = open_image(source).copy()  # a picture that came as an object stays as it is
    except ImageError:
        return ""
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
