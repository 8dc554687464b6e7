"""Memory for large arrays that is used again: fresh memory has to be cleared by the system, which takes its time."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

_guard = threading.Lock()
_waiting: list[NDArray[np.uint8]] = []  # appending and popping are atomic
_most = 0  # bytes that may wait


@contextmanager
def slabs_kept(most: int) -> Iterator[None]:
    """Let up to so many bytes wait to be used again, besides those of other threads that are inside."""
    global _most
    with _guard:
        _most += most
    try:
        yield
    finally:
        with _guard:
            _most -= most
            if not _most:
                _waiting.clear()


def uninitialised(*shape: int) -> NDArray[np.uint8]:
    """Return an array of arbitrary bytes, its memory, maybe used before, to be used again once nothing refers to it."""
    size = math.prod(shape)
    try:
        slab = _waiting.pop()
    except IndexError:
        slab = np.empty(0, np.uint8)
    if len(slab) < size:
        slab = np.empty(size, np.uint8)
    return np.asarray(_Room(slab, shape))


class _Room:
    """What an array in a slab, and so every view of it, keeps alive."""

    def __init__(self, slab: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
        self._slab = slab
        self.__array_interface__ = {**slab.__array_interface__, "shape": shape}

    def __del__(self) -> None:
        if sum(map(len, _waiting)) + len(self._slab) <= _most:
            _waiting.append(self._slab)
