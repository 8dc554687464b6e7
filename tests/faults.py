"""Kill first builds, later ones, adding, removing and compacting at random points, and look what is left.

Each child is forked from this process, so that a kill costs a fraction of a second. Half of the children kill
themselves at a random event (a step inside SQLite, a sync, a rename, a deletion), half are killed from outside at a
random time. After every commit a child says so, so that the parent knows what must be there.

python tests/faults.py --kills 1000 --out benchmarks/results/faults.json
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a forked child would wait for threads that only its parent has

import argparse
import json
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fewshot import store as store_module
from fewshot.build import refresh_index, update
from fewshot.database import is_store
from fewshot.encoders.toy import ToyEncoder
from fewshot.images import open_image
from fewshot.removal import remove
from fewshot.store import Store
from fewshot.upkeep import compact, verify

STEPS = 50  # SQLite's steps an event
OPERATIONS = ("create", "build", "add", "remove", "compact")


def picture(path: Path, rng: random.Random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def entries(out: Path) -> dict[str, np.ndarray]:
    if not is_store(out):  # killed before there was one
        return {}
    with Store.open(out) as store:
        rows = store.embeddings(verify=True)
        return {entry.path: np.array(rows[entry.row]) for entry in store.entries()}


def create(out: Path, encoder: ToyEncoder) -> Store:
    return Store.create(out, encoder=encoder.name, fingerprint=encoder.fingerprint, dim=encoder.dim)


def run(operation: str, root: Path, out: Path, encoder: ToyEncoder, said: int) -> None:
    """Do one thing to the store; write the number of files after every commit."""
    with create(out, encoder) if operation == "create" else Store.open(out, write=True) as store:
        real = store.writing
        depth = 0

        class Told:
            def __enter__(self):
                nonlocal depth
                depth += 1
                self.inner = real()
                return self.inner.__enter__()

            def __exit__(self, *error):
                nonlocal depth
                depth -= 1
                self.inner.__exit__(*error)
                listed = sorted(entry.path for entry in store.entries())
                os.write(said, json.dumps(listed).encode() + b"\n")

        store.writing = Told
        if operation in ("create", "build"):
            update(store, [root / "photos"], encoder=encoder, batch=4)
        elif operation == "add":
            update(store, [root / "more"], encoder=encoder, batch=3, label="more")
        elif operation == "remove":
            victims = [entry.path for entry in store.entries()][::3]
            remove(store, victims)
            refresh_index(store)
        else:
            compact(store)


def arm(after: int, count) -> None:
    """Call `count` at every event from here on; at number `after` this process is killed."""
    happened = 0

    def event(*_):
        nonlocal happened
        happened += 1
        if happened == after:
            os.kill(os.getpid(), signal.SIGKILL)
        count(happened)
        return 0

    def wrapped(function):
        def call(*args, **kwargs):
            event()
            result = function(*args, **kwargs)
            event()
            return result

        return call

    for name in ("fsync", "unlink", "replace", "rename"):
        setattr(os, name, wrapped(getattr(os, name)))
    real = store_module.connect

    def connect(folder, *, write):
        database = real(folder, write=write)
        if write:
            database.set_progress_handler(event, STEPS)
        return database

    store_module.connect = connect


def child(operation: str, root: Path, out: Path, encoder: ToyEncoder, after: int) -> tuple[int, int, int]:
    """Fork; return the process and the pipes with what it commits and how many events there were."""
    said, tell = os.pipe()
    events, note = os.pipe()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            seen = 0

            def count(number):
                nonlocal seen
                seen = number

            arm(after, count)
            run(operation, root, out, encoder, tell)
            os.write(note, str(seen).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(tell)
    os.close(note)
    return process, said, events


def drain(handle: int) -> bytes:
    data = b""
    while piece := os.read(handle, 1 << 16):
        data += piece
    os.close(handle)
    return data


def check(operation: str, before: dict, now: dict, said: bytes, expected) -> None:
    """Compare what is there after a kill with what was there before and what was said to be committed."""
    lines = [line for line in said.split(b"\n")[:-1] if line]
    last = set(json.loads(lines[-1])) if lines else set(before)
    if operation in ("create", "build", "add"):
        assert last <= set(now), f"{operation}: lost {sorted(last - set(now))[:3]}"
        assert set(before) <= set(now), "lost what was there before"
    elif operation == "remove":
        gone = set(sorted(before)[::3])
        assert set(now) in (set(before), set(before) - gone), "half of a removal"
        assert not lines or set(now) == last, "a committed removal came back"
    else:
        assert set(now) == set(before), "a compaction lost or invented files"
    for path, embedding in now.items():
        np.testing.assert_allclose(embedding, expected(path), atol=1e-6, err_msg=path)


def fault_runs(kills: int, seed: int, folder: Path) -> dict[str, object]:
    """Kill that many children, checking after each; raises AssertionError at the first loss."""
    torch.set_num_threads(1)
    rng, encoder = random.Random(seed), ToyEncoder(torch.device("cpu"))
    root, out = folder, folder / "index"
    known: dict[str, np.ndarray] = {}

    def expected(path: str) -> np.ndarray:
        if path not in known:
            known[path] = encoder.encode_images([open_image(path)])[0].numpy()
        return known[path]

    for i in range(8):
        picture(root / "photos" / f"{i}.png", rng)
    with create(out, encoder) as store:
        update(store, [root / "photos"], encoder=encoder)
    done: Counter[str] = Counter()
    typical = dict.fromkeys(OPERATIONS, (200, 0.1))
    number = 0
    while sum(done.values()) < kills:
        number += 1
        operation = OPERATIONS[number % len(OPERATIONS)]
        place = folder / "fresh" if operation == "create" else out
        shutil.rmtree(folder / "fresh", ignore_errors=True)
        for i in range(rng.randrange(1, 6)):
            if operation in ("build", "add"):
                picture(root / ("photos" if operation == "build" else "more") / f"{number}-{i}.png", rng)
        before = entries(place)
        events, seconds = typical[operation]
        outside = rng.random() < 0.5
        start = time.perf_counter()
        process, said, count = child(operation, root, place, encoder, 0 if outside else rng.randrange(1, events + 1))
        if outside:
            time.sleep(rng.random() * seconds)
            os.kill(process, signal.SIGKILL)
        told, counted = drain(said), drain(count)
        _, status = os.waitpid(process, 0)
        killed = os.WIFSIGNALED(status)
        assert killed or os.waitstatus_to_exitcode(status) == 0, f"{operation} failed"
        if killed:
            done[f"{operation}, {'from outside' if outside else 'at an event'}"] += 1
        else:
            typical[operation] = max(int(counted or 0), 10), time.perf_counter() - start
        problems = verify(place) if is_store(place) else []
        assert not problems, f"{operation} left damage: {problems}"
        check(operation, before, entries(place), told, expected)
        if len(before) > 60:
            with Store.open(out, write=True) as store:
                remove(store, ["*"])
            for path in [*root.glob("photos/*"), *root.glob("more/*")]:
                path.unlink()
            picture(root / "photos" / f"again-{number}.png", rng)
    return {"kills": sum(done.values()), "trials": number, "by": dict(sorted(done.items())), "lost": 0, "damaged": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    start = time.perf_counter()
    memory = Path("/dev/shm")  # a kill leaves the same there as on a disk, only sooner
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        found = fault_runs(given.kills, given.seed, Path(folder))
    result = {"benchmark": "faults", **found, "seed": given.seed, "seconds": round(time.perf_counter() - start, 1)}
    result |= {"sqlite": sqlite3.sqlite_version, "python": sys.version.split()[0]}
    print(json.dumps(result))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    import faiss  # noqa: F401 - once here instead of in every child; after torch

    main()
