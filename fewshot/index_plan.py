"""Which kind of index suits how many rows, how much memory and which recall; and what it will need."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot.codes import Codes
from fewshot.errors import FormatError, InvalidOption, NotEnoughMemory
from fewshot.scan import BLOCK

if TYPE_CHECKING:
    from fewshot.index_file import Facts
    from fewshot.store import Store

KINDS = {
    "auto": "exact up to 5,000 rows, then fast, from 50,000 rows on ivf",
    "exact": "every query is compared with every row",
    "fast": "4-bit codes of rotated rows, all scanned",
    "ivf": "such codes in lists, a few of which are scanned",
    "hnsw": "a graph over 8-bit codes",
    "pq": "the smallest codes, all scanned",
    "sq": "8-bit codes, all scanned",
}
EXACT_MOST = 5_000  # rows that are scanned as quickly as codes of them
IVF_LEAST = 50_000  # rows that are scanned more quickly in part
SAMPLE, A_LIST = 16_384, 32  # rows to learn codes from, and rows for each list's centre, at most
ROWS_A_LIST = 100  # unless that makes more than so many lists, and more than twice the root of the rows:
LISTS, LISTS_MOST = 1024, 4096
UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user asks of an index: a kind or FAISS factory string, recall@10 in (0, 1), and bytes it may take."""

    kind: str = "auto"
    recall: float = 0.999
    memory: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be; a factory string is looked at when the index is planned."""
        if not 0 < self.recall < 1:
            raise InvalidOption(f"recall must lie between 0 and 1, got {self.recall}; --kind exact always has 1")
        if not self.kind.strip() or not self.kind.isprintable():
            raise InvalidOption(f"{self.kind!r} is no kind of index; use {', '.join(KINDS)}, or a FAISS factory string")


@dataclass(frozen=True, slots=True)
class Plan:
    """A kind with its FAISS factory string, and the bytes it takes once built, and at most while it is built."""

    kind: str
    factory: str  # empty for `exact`, which needs no codes
    sample: int  # rows it learns from at most
    resident: int
    peak: int

    def __str__(self) -> str:
        """`fast (OPQ128_512,PQ128x4fs): 7.47 MB of memory, 183 MB while it is built`."""
        name = f"{self.kind} ({self.factory})" if self.factory and self.factory != self.kind else self.kind
        return f"{name}: {size(self.resident)} of memory, {size(self.peak)} while it is built"


def plan(wanted: Wanted, rows: int, dim: int, free: int | None = None) -> Plan:
    """Choose the index for so many rows; `free` is the memory there is, looked up if not given.

    Raises
    ------
    InvalidOption
        when FAISS rejects the factory string.
    NotEnoughMemory
        when the index, or its making, does not fit.
    """
    names = [wanted.kind] if wanted.kind != "auto" else _auto(rows)
    plans = [_planned(name, rows, dim) for name in names]
    budget = wanted.memory
    fitting = [p for p in plans if budget is None or p.resident <= budget]
    if not fitting:
        least = min(plans, key=lambda p: p.resident)
        raise NotEnoughMemory(
            f"an index of {rows:,} x {dim} needs {least}, but --memory allows {size(budget or 0)}; "
            "allow more, or use --kind exact, which reads the embeddings from disk"
        )
    chosen, there = fitting[0], free_memory() if free is None else free
    if there is not None and chosen.peak > there:
        raise NotEnoughMemory(
            f"an index of {rows:,} x {dim} needs {chosen}, but {size(there)} are free; "
            "close other programs, or use --kind exact, which reads the embeddings from disk"
        )
    return chosen


def _auto(rows: int) -> list[str]:
    """Name the kinds in the order in which they are to be tried."""
    if rows <= EXACT_MOST:
        return ["exact"]
    return ["ivf", "fast", "pq"] if rows >= IVF_LEAST else ["fast", "pq"]


def _planned(kind: str, rows: int, dim: int) -> Plan:
    if kind == "exact":
        return Plan(kind, "", 0, 0, 8 * BLOCK * dim * 4 if rows > 8 * BLOCK else rows * dim * 4)
    factory = factory_of(kind, rows, dim)
    codes = Codes.make(factory, dim)
    fixed = dim * dim * 4 + 4 * dim * (codes.most_effort if codes.probes else 16)  # rotation; centres of lists or codes
    resident = int(rows * codes.bytes_per_row()) + fixed
    sample = min(rows, max(SAMPLE, A_LIST * codes.most_effort * codes.probes))
    return Plan(kind, factory, sample, resident, 2 * resident + 2 * (sample + BLOCK) * dim * 4)


def memory_of(facts: Facts, dim: int) -> int:
    """Return the bytes that the codes of a saved index take in memory; the embeddings stay on disk."""
    return _planned(facts.factory or "exact", facts.rows, dim).resident


def factory_of(kind: str, rows: int, dim: int) -> str:
    """Return the FAISS factory string of a kind; a name that is no kind is one already.

    `fast` has codes of 4 dimensions by 4 bits, after a rotation learnt from the rows. In the lists of `ivf` the same
    codes tell rows from their list's centre.
    """
    codes, many = _rotated(dim, 4), max(rows, 1)
    lists = 2 ** round(math.log2(max(min(many / ROWS_A_LIST, max(2 * many**0.5, LISTS), LISTS_MOST), 1)))
    known = {
        "fast": codes,
        "ivf": codes.replace(",", f",IVF{lists},") + "r",
        "hnsw": "HNSW32,SQ8",
        "pq": _rotated(dim, 8),
        "sq": "SQ8",
    }
    return known.get(kind, kind)


def _rotated(dim: int, each: int) -> str:
    """Return the factory string of 4-bit codes for so many dimensions each, after a rotation that suits them."""
    parts = -(-dim // each)
    return f"OPQ{parts}_{parts * each},PQ{parts}x4fs"


def free_memory() -> int | None:
    """Return the bytes that can be allocated without swapping, or None where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else None


def size(count: float) -> str:
    """Write bytes for people: `13.2 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def read_size(text: str) -> int:
    """Read `500MB`, `2 GB`, `1e9` or a number of bytes.

    Raises
    ------
    InvalidOption
        for anything else, and for less than a byte.
    """
    found = re.fullmatch(r"\s*([\d.]+(?:E\+?\d+)?)\s*([KMGT]?)B?\s*", text.upper())
    try:
        count = int(float(found[1]) * UNITS[found[2]]) if found else 0
    except (ValueError, OverflowError):
        count = 0
    if count < 1:
        raise InvalidOption(f"a size like 500MB or 2GB is needed, of 1 byte or more, got {text!r}")
    return count


def wanted_of(store: Store) -> Wanted:
    """Return what was asked of a store's index, or the default.

    Raises
    ------
    FormatError
        when the store's note of it cannot be read.
    """
    noted = store.database.execute("SELECT value FROM meta WHERE key = 'search'").fetchone()
    try:
        return Wanted(**json.loads(noted[0])) if noted else Wanted()
    except (TypeError, ValueError) as error:
        raise FormatError(f"{store.path} is damaged: its search settings cannot be read ({error})") from error


def check_kind(wanted: Wanted, dim: int) -> None:
    """Raise InvalidOption when FAISS rejects the factory string for so many dimensions."""
    if wanted.kind != "auto":
        _planned(wanted.kind, 0, dim)


def want(store: Store, wanted: Wanted) -> None:
    """Note in a store, opened for writing, what is asked of its index.

    Raises
    ------
    InvalidOption
        when FAISS rejects the factory string.
    """
    check_kind(wanted, store.dim)
    with store.writing() as database:
        database.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('search', ?)", (json.dumps(asdict(wanted)),))
