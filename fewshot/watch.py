"""Keep an index current: look at its folders again and again, and update it when something has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fewshot.build import Counts, build_index, check_sources, update
from fewshot.database import is_store
from fewshot.encoders import Encoder, load_encoder
from fewshot.errors import DataError, FormatError, InvalidOption, OutputError, StoreLocked
from fewshot.store import Store
from fewshot.walk import walk

LONGEST = 1e6  # seconds between looks, some eleven days
PASSING = StoreLocked, DataError  # another writer, a folder that is not mounted
LATER = FormatError, OutputError  # an index that is not there any more, a full disk: told at once at the start
State = frozenset[tuple[str, int, int, int]]


def watch(
    roots: Sequence[str | Path],
    out: str | Path,
    *,
    encoder: str | None = None,
    device: str = "auto",
    interval: float = 5.0,
    tell: Callable[[Counts | str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Bring the index `out` up to date with `roots`, at first and whenever a file appears, changes or goes.

    Looks every `interval` seconds, by path, size and times; the encoder is loaded once. `tell` gets the counts of every
    update, and a line when updates have to wait, once for each reason. Runs until interrupted; between updates nothing
    is locked.

    Raises
    ------
    DataError
        when a root is missing, or there is no picture, at the start; later both are waited out.
    FormatError, OutputError
        when the index is damaged or cannot be written, at the start; later it is waited out, as is one that is gone.
    InvalidOption
        for an `interval` that is not above 0, or above `LONGEST`.
    """
    if not 0 < interval <= LONGEST:
        raise InvalidOption(f"interval must be above 0 and at most {LONGEST:g} seconds, got {interval}")
    check_sources(roots)
    model: Encoder | None = None
    seen: State | None = None
    odd, waiting = (-1, -1), ""  # files skipped and kept unseen; -1: nothing was told yet
    if not is_store(Path(out)):
        counts = build_index(roots, out, encoder=encoder, device=device)
        tell(counts)
        odd = counts.skipped, counts.unseen
    while True:
        try:
            now = _state(roots)
            if now != seen or not is_store(Path(out)):
                with Store.open(out, write=True) as store:
                    model = model or load_encoder(encoder or store.encoder, device)
                    counts = update(store, roots, encoder=model)
                if counts.embedded or counts.copies or counts.gone or odd != (counts.skipped, counts.unseen):
                    tell(counts)
                seen, odd = now, (counts.skipped, counts.unseen)
            waiting = ""
        except (*PASSING, *LATER) as error:
            if seen is None and isinstance(error, LATER):
                raise
            if str(error) != waiting:
                waiting = str(error)
                tell(f"waiting: {waiting}")
        sleep(interval)


def _state(roots: Sequence[str | Path]) -> State:
    return frozenset((f.path, f.size, f.mtime_ns, f.changed_ns) for root in roots for f in walk(root))
