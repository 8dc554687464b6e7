"""Episodes to and from one `.npz` file, so that somebody else can run exactly the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.arrays import read_arrays
from fewshot.episodes import ARRAYS, Episodes, EpisodeSpec
from fewshot.errors import FewshotError, FormatError, OutputError, OutputExists

FORMAT = "fewshot episodes"
VERSION = 1


def save_episodes(path: str | Path, episodes: Episodes, *, overwrite: bool = False) -> None:
    """Write episodes, their spec and a checksum.

    Raises
    ------
    OutputExists
        when the file is there and `overwrite` is not set.
    OutputError
        when it cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} is there already; choose another name or pass overwrite=True")
    header = {
        "format": FORMAT,
        "version": VERSION,
        "spec": episodes.spec.to_dict(),
        "data": episodes.data,
        "checksum": episodes.checksum(),
    }
    part = path.with_name(path.name + ".part")  # so that a run that is killed leaves no half of a file
    try:
        with part.open("wb") as file:
            arrays = {name: getattr(episodes, name) for name in ARRAYS}
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error


def load_episodes(path: str | Path, *, data: str = "") -> Episodes:
    """Read episodes; with `data` (see `data_hash`), refuse those drawn from other data.

    Raises
    ------
    FormatError
        when the file is no episodes file, of another version, damaged, or drawn from other data.
    """
    try:
        found = read_arrays(path)
        header = dict(json.loads(str(found["header"])))
        arrays: dict[str, Any] = {name: found[name] for name in ARRAYS}
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = f"no array {error}" if isinstance(error, KeyError) else error
        raise FormatError(f"{path} is not an episodes file that can be read: {reason}") from error
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        held = f"{header.get('format')!r} version {header.get('version')}"
        raise FormatError(f"{path} holds {held}, this program reads {FORMAT!r} version {VERSION}")
    try:
        episodes = Episodes(spec=EpisodeSpec.from_dict(header["spec"]), data=header["data"], **arrays)
    except (KeyError, FewshotError) as error:
        raise FormatError(f"{path} is damaged: {error}") from error
    if episodes.checksum() != header["checksum"]:
        raise FormatError(f"{path} is damaged: its checksum does not match its episodes")
    if data and episodes.data != data:
        raise FormatError(f"{path} was drawn from other data (labels {episodes.data}, here {data})")
    return episodes
