"""Processes that read and prepare pictures, each fed by a thread of ours: what they cannot do, the thread does itself.

A process gets the encoder without its network, and then chunks of jobs as JSON, through its standard input; on its
standard output it answers with JSON and one array of pixels, so that nothing that comes from there is unpickled. It is
a plain `python -m`: nothing is forked, which beside a GPU and threads is asking for trouble, and no script is run a
second time. It ends when its input does, so it does not outlive a killed parent.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.images import memory_kept

Job = Any  # what `work` takes; what is no JSON, but for paths, is done here
Answer = tuple[Any, Tensor]  # what it tells besides, of JSON, and pixels [n, 3, H, W]
LOST = (OSError, EOFError, ValueError)  # what talking to a process that has ended may raise
SMALL = 4096  # elements of a tensor that travels with the encoder: means and deviations, not weights


class Decoders:
    """Some processes that each do `work(encoder, jobs)`; leaves at the end of a `with` block."""

    def __init__(self, work: Callable[[Any, list[Job]], Answer], encoder: object, count: int) -> None:
        self._work, self._encoder = work, encoder
        self._ready: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []
        try:
            setup = hollow((work, encoder))
        except (pickle.PicklingError, TypeError, AttributeError):  # a lock, a local function ... cannot travel
            return
        if getattr(sys, "frozen", False) or not sys.executable:  # then there is no Python to start
            return
        paths = os.pathsep.join(p for p in sys.path if p)
        about = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
        for _ in range(count):
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "fewshot.decoders"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=about,
                    start_new_session=True,  # Ctrl-C is for the parent
                )
            except OSError:  # no memory, or no file descriptor, for another
                return
            self._all.append(process)
            threading.Thread(target=self._await, args=(process, setup), daemon=True).start()

    def __enter__(self) -> Decoders:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        for process in self._all:
            process.kill()
        for process in self._all:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # what could not be written to one that was killed
                    if pipe:
                        pipe.close()

    def do(self, jobs: list[Job]) -> Answer:
        """Have a process that is ready do the jobs, or do them here: while none is, or where one fails."""
        try:
            message = json.dumps(jobs, default=_path).encode() + b"\n"
            process = self._ready.get_nowait()
        except (TypeError, Empty):
            return self._work(self._encoder, jobs)
        try:
            found = _told(process, message)
        except LOST:  # it was killed; its place stays empty
            return self._work(self._encoder, jobs)
        self._ready.put(process)
        return found or self._work(self._encoder, jobs)

    def _await(self, process: subprocess.Popen[bytes], setup: bytes) -> None:
        """Count a process among those that are ready once it says so."""
        try:
            if _told(process, setup) is not None:
                self._ready.put(process)
        except LOST:  # it could not begin
            return


def _path(thing: object) -> str:
    if isinstance(thing, Path):
        return str(thing)
    raise TypeError(f"{type(thing).__name__} cannot travel")


def _told(process: subprocess.Popen[bytes], message: bytes) -> Answer | None:
    """Say something to a process and wait for its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(message)
    process.stdin.flush()
    return receive(process.stdout)


class _Hollow(pickle.Pickler):
    def persistent_id(self, thing: object) -> str | None:
        if isinstance(thing, nn.Module):  # a network, or a step of the preprocessing, which holds next to nothing
            held = [*thing.parameters(), *thing.buffers()]
        else:
            held = [thing] if isinstance(thing, Tensor) else []
        heavy = any(tensor.device.type != "cpu" for tensor in held) or sum(tensor.numel() for tensor in held) > SMALL
        return "left out" if heavy else None


class _Filled(pickle.Unpickler):
    def persistent_load(self, _: str) -> None:
        return None


def hollow(thing: object) -> bytes:
    """Pickle something without the networks and large tensors in it, in whose place None will be."""
    out = io.BytesIO()
    _Hollow(out).dump(thing)
    return out.getvalue()


def send(pipe: IO[bytes], told: object, pixels: Tensor | None = None) -> None:
    """Write what is told, and then pixels as they lie in memory; None stands for what could not be done."""
    array = None if pixels is None else np.ascontiguousarray(pixels.numpy())
    pipe.write(json.dumps([told, None if array is None else [array.shape, array.dtype.str]]).encode() + b"\n")
    if array is not None and array.size:
        pipe.write(array.reshape(-1).view(np.uint8).data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Answer | None:
    """Read what `send` wrote; None where nothing could be done.

    Raises
    ------
    EOFError
        when the other side has ended.
    """
    told, kind = json.loads(_line(pipe))
    if kind is None:
        return None
    array = np.empty(*kind)
    view, done = array.reshape(-1).view(np.uint8).data, 0
    while done < len(view):
        count = pipe.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count
    return told, torch.from_numpy(array)


def _line(pipe: IO[bytes]) -> bytes:
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line


def main() -> None:
    """Do the jobs that come on standard input until it ends."""
    torch.set_num_threads(1)
    jobs_in, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that prints gets between
    try:
        work, encoder = _Filled(jobs_in).load()
    except Exception:  # noqa: BLE001 - such as a class of a script, which is not there for us: the parent does without
        return
    send(answers, "ready", torch.zeros(0))
    with memory_kept():
        while True:
            try:
                jobs = json.loads(_line(jobs_in))
            except EOFError:
                return
            try:
                told, pixels = work(encoder, jobs)
            except Exception:  # noqa: BLE001 - whatever it is, the parent meets it when it does the job itself
                send(answers, None)
                continue
            send(answers, told, pixels)


if __name__ == "__main__":
    main()
