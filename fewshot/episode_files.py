"""Episodes to and from one `.npz` file, so that somebody else can run exactly the same ones."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

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
    try:
        with path.open("wb") as file:
            arrays = {name: getattr(episodes, name) for name in ARRAYS}
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)
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
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            arrays = {name: file[name] for name in ARRAYS}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} is not an episodes file that can be read: {error}") from error
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        found = f"{header.get('format')!r} version {header.get('version')}"
        raise FormatError(f"{path} holds {found}, this program reads {FORMAT!r} version {VERSION}")
    try:
        episodes = Episodes(spec=EpisodeSpec.from_dict(header["spec"]), data=header["data"], **arrays)
    except (KeyError, FewshotError) as error:
        raise FormatError(f"{path} is damaged: {error}") from error
    if episodes.checksum() != header["checksum"]:
        raise FormatError(f"{path} is damaged: its checksum does not match its episodes")
    if data and episodes.data != data:
        raise FormatError(f"{path} was drawn from other data (labels {episodes.data}, here {data})")
    return episodes
