"""The file that keeps an index between runs: FAISS's bytes, which rows are alive, and what was measured.

::

    index-G-C.faiss     G = the store's generation it is of, C = CRC-32 of the content
    content             codes [bytes] | alive, 8 rows a byte | facts as JSON | length of each, 3 x 8 bytes little-endian
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewshot.depth import CAUTION, Care
from fewshot.effort import ANY, UNSEEN, Tier
from fewshot.scan import Mask
from fewshot.store import INDEXES, generation_of

if TYPE_CHECKING:
    from fewshot.store import Store

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an index."""

    kind: str
    factory: str
    wanted: tuple[str, float, int | None]  # what was asked for: kind, recall, memory
    rows: int  # of the store that are in it
    built: int  # rows there were when it was trained
    chunks: int  # checksum of the store's notes on those rows
    caution: float = CAUTION  # see `fewshot.depth`
    noise: float = 0.0  # also there
    spread: int = 8  # see `fewshot.depth.first_depth`
    lead: float = ANY  # see `fewshot.effort`
    tiers: tuple[Tier, ...] = ()  # how many lists or nodes to look into
    recall: dict[str, float] = field(default_factory=dict)  # measured recall@10 of each kind of query
    sample: int = 0  # queries it was measured with

    @property
    def care(self) -> Care:
        """How sure an answer must be."""
        missed = 1 - self.wanted[1]
        return Care(missed * (1 - UNSEEN) if self.tiers else missed, self.caution, self.noise)

    def __str__(self) -> str:
        """`fast (OPQ128_512,PQ128x4fs), recall@10 0.9997 for pictures, 0.9983 for mixtures, on 600 queries`"""
        if not self.factory:
            return "exact" if self.kind == "exact" else f"exact, as there are too few pictures for {self.kind} yet"
        name = f"{self.kind} ({self.factory})" if self.kind != self.factory else self.kind
        each = ", ".join(f"{recall:.4f} for {kind}" for kind, recall in self.recall.items())
        return f"{name}, recall@10 {f'{each}, on {self.sample} queries' if each else 'not measured'}"


def save(folder: Path, generation: int, codes: Bytes, alive: Mask, facts: Facts) -> None:
    """Write an index beside its store, in one step, and drop older ones.

    A disk that is full, or a folder that may only be read, is no error: the index is a copy.
    """
    told = np.frombuffer(json.dumps(dataclasses.asdict(facts)).encode(), np.uint8)
    parts = [codes, np.packbits(alive), told]
    parts.append(np.array([len(part) for part in parts], "<u8").view(np.uint8))
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part.data, checksum)
    target = folder / f"index-{generation}-{checksum:08x}.faiss"
    temporary = target.with_suffix(".part")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part.data)
        temporary.replace(target)
        for other in folder.glob(INDEXES):
            if other != target:
                other.unlink(missing_ok=True)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # its bytes are what others may be short of


def load(file: Path) -> tuple[Bytes, Mask, Facts] | None:
    """Read what `save` wrote, or return None when it is damaged or of another version."""
    try:
        content = np.memmap(file, np.uint8, "r")
        if f"{zlib.crc32(content.data):08x}" != file.stem.rsplit("-", 1)[1]:
            return None
        lengths = content[-24:].view("<u8").astype(np.int64).tolist()
        codes, alive, told, _ = np.split(content, np.cumsum(lengths))
        given = json.loads(told.tobytes())
        given["wanted"] = tuple(given["wanted"])
        given["recall"] = dict(given["recall"])
        given["lead"] = float(given["lead"])  # older files lack it, and are built again
        given["tiers"] = tuple(Tier(least, tuple(map(tuple, efforts))) for least, efforts in given["tiers"])
        facts = Facts(**given)
        return codes, np.unpackbits(alive, count=facts.rows).astype(bool), facts
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None


def latest(store: Store) -> tuple[Path | None, bool]:
    """Return the newest saved index of a store, and whether it is of the store's latest change."""
    current = store.saved_index()
    if current is not None:
        return current, True
    files = sorted(store.path.glob(INDEXES), key=generation_of)
    return (files[-1], False) if files else (None, False)


def current_facts(store: Store) -> Facts | None:
    """Return what is known of a store's saved index, or None when there is none of its latest change, undamaged."""
    file = store.saved_index()
    loaded = None if file is None else load(file)
    return None if loaded is None else loaded[2]


def chunks_checksum(store: Store, rows: int) -> int:
    """Return a checksum of the store's notes on its first rows, which changes when they are numbered anew."""
    noted = store.database.execute("SELECT first, count, crc FROM chunks WHERE first < ? ORDER BY first", (rows,))
    return zlib.crc32(repr(noted.fetchall()).encode())
