"""What two processes tell each other: JSON through a pipe, and pixels through memory that both have.

That memory is a file without a name, gone once neither has it open, however they end.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import tempfile
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.slabs import uninitialised

Answer = tuple[Any, Tensor]  # what is told besides, of JSON, and pixels [n, 3, H, W]


class Shared:
    """As many bytes as are asked for. Each of the two processes makes one of these, of the same file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    def __del__(self) -> None:
        os.close(self.descriptor)

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """Return the first so many; what was returned before is not to be used any more, nor by the other process."""
        if not count:
            return np.empty(0, np.uint8)
        if self._map is None or len(self._map) < count:
            if os.fstat(self.descriptor).st_size < count:
                os.ftruncate(self.descriptor, count)
            self._map = mmap.mmap(self.descriptor, count)
        return np.frombuffer(self._map, np.uint8, count)


def unnamed_file() -> int:
    """Open such a file, in memory where the system has that; return its descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fewshot")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def send(pipe: IO[bytes], shared: Shared, told: object, pixels: Tensor | None = None) -> None:
    """Write what is told, and put pixels as they lie in memory beside it; None stands for what could not be done."""
    kind = None
    if pixels is not None:
        axes = sorted(range(pixels.ndim), key=pixels.stride, reverse=True)  # the colours of a pixel may come last
        array = pixels.numpy().transpose(axes)
        kind = array.shape, array.dtype.str, axes
        shared.bytes(array.nbytes).view(array.dtype).reshape(array.shape)[...] = array
    pipe.write(json.dumps([told, kind]).encode() + b"\n")
    pipe.flush()


def receive(pipe: IO[bytes], shared: Shared) -> Answer | None:
    """Read what `send` wrote; None where nothing could be done.

    Raises
    ------
    EOFError
        when the other side has ended.
    """
    told, kind = json.loads(line(pipe))
    if kind is None:
        return None
    shape, dtype, axes = kind
    size = math.prod(shape) * np.dtype(dtype).itemsize
    copy = uninitialised(size)
    copy[:] = shared.bytes(size)
    array = copy.view(dtype).reshape(shape)
    return told, torch.from_numpy(array).permute(*np.argsort(axes).tolist())


def line(pipe: IO[bytes]) -> bytes:
    """Read a line; raises EOFError when the other side has ended."""
    found = pipe.readline()
    if not found.endswith(b"\n"):
        raise EOFError
    return found
