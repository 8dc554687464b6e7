"""Saved classifiers, weights and checkpoints: one safetensors file whose header carries the rest as JSON. No pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.database import is_store
from fewshot.encoders.weights import state_sha256
from fewshot.errors import FormatError, OutputError, OutputExists

VERSION = 1
MAKERS = {"classifier": "fewshot fit", "weights": "fewshot finetune", "checkpoint": "fewshot finetune"}


@contextlib.contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when all went well.

    Raises
    ------
    OutputExists
        when `path` is there and `overwrite` is false.
    OutputError
        when the folder cannot be written.
    """
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists already; choose another name, or pass --force to replace it")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
            os.chmod(name, 0o666 & ~_umask())  # only now: safetensors makes the file anew, for its owner alone
            os.replace(name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_model(
    path: Path,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    overwrite: bool = False,
    kind: str = "classifier",
) -> None:
    """Write tensors and JSON-able `meta` to one file, in one step: a crash leaves the old file or the new one.

    `kind` is one of MAKERS and stands in the file, so that one kind is not taken for another.

    Raises
    ------
    OutputExists, OutputError
        as `replacing` does.
    """
    from safetensors.torch import save_file

    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    text = json.dumps(meta)
    header = {
        "format": f"fewshot-{kind}",
        "version": str(VERSION),
        "meta": text,
        "meta_sha256": _text_sha256(text),
        "sha256": state_sha256(own),
    }
    with replacing(path, overwrite) as temporary:
        save_file(own, temporary, header)


def read_model(path: Path, device: torch.device, kind: str = "classifier") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_model` wrote as this `kind`.

    Raises
    ------
    FormatError
        when the file is missing, truncated, of a newer version, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    what = {"classifier": "model", "weights": "weights file"}.get(kind, kind)
    if path.is_dir():
        found = "an index" if is_store(path) else "a folder"
        raise FormatError(f"{path} is {found} and no {what}; make one with `{MAKERS[kind]}`")
    if not path.is_file():
        raise FormatError(f"{what} {path} is not there")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} is not a fewshot {what}, or is damaged: {error}") from error
    if header.get("format") != f"fewshot-{kind}":
        raise FormatError(f"{path} is a safetensors file, but not a fewshot {what}; make one with `{MAKERS[kind]}`")
    if header.get("version") != str(VERSION):
        raise FormatError(
            f"{path} has {what} format {header.get('version')}, this program reads {VERSION}; use a matching version"
        )
    if header.get("sha256") != state_sha256(tensors):
        raise FormatError(f"{path} is damaged: its tensors are not those that were saved; make it again")
    if "meta_sha256" in header and header["meta_sha256"] != _text_sha256(header.get("meta", "")):
        raise FormatError(f"{path} is damaged: its header is not the one that was saved; make it again")
    try:
        meta = json.loads(header["meta"])
    except (KeyError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} is damaged: its header cannot be read ({error})") from error
    if not isinstance(meta, dict):
        raise FormatError(f"{path} is damaged: its header is not an object")
    return tensors, meta
