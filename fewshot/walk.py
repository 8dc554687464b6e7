"""Walk files and folders for pictures, with the size and time of each, at one stat a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fewshot.errors import DataError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".tga", ".ico"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".heic"}
)


class Found(NamedTuple):
    """One file: `label` is the folder directly beneath the walked folder that it lies in, at any depth, or None."""

    path: str
    size: int  # bytes
    mtime_ns: int
    label: str | None
    changed_ns: int = 0  # content, name or permissions


def has_image_suffix(name: str) -> bool:
    """Tell whether a file name ends like a picture's."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def walk(root: str | Path) -> Iterator[Found]:
    """Yield the pictures under a folder, or the one file that `root` is, whatever its suffix.

    A folder further down that cannot be listed is yielded like a file, so that whoever reads it learns the reason.

    Raises
    ------
    DataError
        when `root` does not exist or cannot be listed.
    """
    top = os.fspath(root)
    try:
        info = os.stat(top)
        if not os.path.isdir(top):
            yield Found(top, info.st_size, info.st_mtime_ns, None, info.st_ctime_ns)
            return
        os.scandir(top).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {top!r}: {reason}; give a picture or a folder of pictures") from error
    yield from _walk_folder(top)


def _walk_folder(top: str) -> Iterator[Found]:
    seen: set[tuple[int, int]] = set()
    folders: list[tuple[str, str | None]] = [(top, None)]
    links: list[tuple[str, str | None]] = []  # linked folders come last, so that a picture is found under its own path
    while folders or links:
        folder, label = folders.pop() if folders else links.pop()
        try:
            info = os.stat(folder)
            entries = [] if (info.st_dev, info.st_ino) in seen else sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError:
            yield Found(folder, 0, 0, label)
            continue
        seen.add((info.st_dev, info.st_ino))
        below: list[tuple[str, str | None]] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                target = links if entry.is_symlink() else below
                target.append((entry.path, label or entry.name))
            elif has_image_suffix(entry.name):
                yield _found(entry, label)
        folders.extend(reversed(below))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _found(entry: os.DirEntry[str], label: str | None) -> Found:
    try:
        info = entry.stat()
    except OSError:  # a link to nowhere: reading it will tell
        return Found(entry.path, 0, 0, label)
    return Found(entry.path, info.st_size, info.st_mtime_ns, label, info.st_ctime_ns)
