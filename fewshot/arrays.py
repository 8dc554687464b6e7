"""The only border between torch and numpy, and the rules for norm, dtype and device."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.errors import InvalidOption

TINY = 1e-12  # norms below this count as zero


def unit(x: Tensor) -> Tensor:
    """Scale rows to length 1; a zero row stays zero.  [..., D] -> [..., D]"""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # [..., 1]
    return x / norm.clamp_min(TINY)


def to_numpy(x: Tensor) -> NDArray[np.float32]:
    """Return a contiguous float32 array of a tensor on any device."""
    return np.ascontiguousarray(x.detach().to("cpu", torch.float32).numpy())


def to_tensor(x: NDArray[np.floating]) -> Tensor:
    """Return a float32 tensor that owns its memory (memory-mapped and read-only arrays are copied)."""
    return torch.from_numpy(np.array(x, dtype=np.float32, copy=True))


def read_arrays(path: str | Path) -> dict[str, NDArray[np.generic]]:
    """Read every array of an `.npz` file; none may hold Python objects, which would need pickle.

    Raises
    ------
    OSError
        when the file cannot be opened.
    ValueError
        when it is no such file, or damaged.
    """
    with Path(path).open("rb") as file:
        if not zipfile.is_zipfile(file):  # np.load would take it for a pickle
            raise ValueError("not an .npz archive, or cut short")
        try:
            with np.load(file, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(f"damaged: {error}") from error


def pick_device(name: str = "auto") -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device.

    Raises
    ------
    InvalidOption
        for another word, or for a GPU that is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise InvalidOption(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    if int(number or 0) >= gpus:
        raise InvalidOption(f"device {name!r} is not there: torch sees {gpus} GPUs; use --device cpu or auto")
    return torch.device(name)
