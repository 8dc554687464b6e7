"""Large pictures are opened by turns, so that the threads of a process hold about one of the largest at once."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LARGE = 25_000_000  # pixels; smaller pictures wait for nobody
ROOM = 200_000_000  # pixels of large pictures that are held at once

_changed = threading.Condition()
_held = 0  # pixels
_mine = threading.local()


@contextmanager
def by_turns() -> Iterator[None]:
    """Have this thread wait in `wait_for_turn`; what it opens is to be done with at the end, and its turn is over."""
    global _held
    _mine.pixels = 0
    try:
        yield
    finally:
        pixels, _mine.pixels = _mine.pixels, None
        if pixels:
            _trim()
            with _changed:
                _held -= pixels
                _changed.notify_all()


def wait_for_turn(pixels: int) -> None:
    """Wait until there is room for a picture of so many pixels, within `by_turns`; whoever holds one need not again."""
    global _held
    if pixels < LARGE or getattr(_mine, "pixels", None) != 0:
        return
    with _changed:
        _changed.wait_for(lambda: not _held or _held + pixels <= ROOM)
        _held += pixels
    _mine.pixels = pixels


def _trim() -> None:
    """Give freed memory back to the system: the C library keeps it for this thread, while others take more."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc only
        if trim is not None:
            trim(0)
