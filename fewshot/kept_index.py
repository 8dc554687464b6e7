"""The index of a store: the saved one, brought up to date if the store has changed since, or a new one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fewshot.codes import Codes
from fewshot.errors import InvalidOption
from fewshot.index import Index
from fewshot.index_file import chunks_checksum, latest, load
from fewshot.index_plan import Wanted, plan, want, wanted_of
from fewshot.store import Store

GROWTH = 2  # an index that has grown beyond twice what it was trained on is built anew


def open_index(store: Store, device: str = "auto") -> Index:
    """Return the index of a store: the saved one, brought up to date if the store has changed since, or a new one.

    It is saved beside the store where that is possible. `device` "cpu" keeps the search off the GPUs, "cuda:1" has it
    use that one.

    Raises
    ------
    FormatError
        when the store's array is damaged, which is looked into whenever the index is built.
    NotEnoughMemory
        when an index is to be built and does not fit.
    """
    index = update_index(store)
    number = device.partition(":")[2]
    return index if device == "cpu" else index.on_gpus(int(number) if number else None)


def update_index(store: Store) -> Index:
    """Bring the saved index of a store up to date: rows are added and left out without building it anew.

    It is built anew when there is none, when it is damaged, when another kind is wanted or suits the size better, when
    the store's rows have been numbered anew, and when it has outgrown what it was trained on. Raises as `open_index`.
    """
    file, current = latest(store)
    loaded = None if file is None else _load(store, file, current)
    if loaded is None:
        return rebuild_index(store)
    if current:
        return loaded
    generation, wanted = store.generation, wanted_of(store)
    rows, facts = store.embeddings(), loaded.facts
    alive = store.mask(count=len(rows))  # another process may have added some meanwhile
    same = facts.wanted == (wanted.kind, wanted.recall, wanted.memory) and facts.chunks == chunks_checksum(
        store, facts.rows
    )
    if not same or len(rows) > GROWTH * facts.built or plan(wanted, len(rows), store.dim).kind != facts.kind:
        return rebuild_index(store)
    index = loaded.grown(rows, alive, chunks_checksum(store, len(rows)))
    index.save(store, generation)
    return index


def rebuild_index(store: Store, wanted: Wanted | None = None) -> Index:
    """Build the index of a store anew and save it beside the store, where that is possible. Raises as `open_index`.

    A new `wanted` is noted in the store, opened for writing, once it is built: what cannot be built changes nothing.
    Where none is given, and FAISS cannot learn the kind from so few rows, they are compared one by one until there are
    twice as many.
    """
    generation, asked = store.generation, wanted or wanted_of(store)
    rows = store.embeddings(verify=True)
    alive = store.mask(count=len(rows))  # another process may have added some meanwhile
    chosen, chunks = plan(asked, len(rows), store.dim), chunks_checksum(store, len(rows))
    try:
        index = Index.build(rows, alive, chosen, asked, chunks)
    except InvalidOption:
        if wanted is not None and wanted.kind != "auto":
            raise
        index = Index.build(rows, alive, dataclasses.replace(chosen, factory=""), asked, chunks)
    if wanted is not None:
        want(store, wanted)
        generation = store.generation
    index.save(store, generation)
    return index


def _load(store: Store, file: Path, current: bool) -> Index | None:
    """Read a saved index, or return None when it is damaged or does not fit the store."""
    loaded = load(file)
    if loaded is None:
        return None
    data, alive, facts = loaded
    try:
        codes = Codes.load(data) if facts.factory and len(data) else None
    except RuntimeError:  # what FAISS raises
        return None
    rows = store.embeddings()
    if len(rows) < facts.rows or len(alive) != facts.rows or (codes is not None and len(codes) != facts.rows):
        return None
    return Index(rows[: facts.rows], alive, codes, facts)
