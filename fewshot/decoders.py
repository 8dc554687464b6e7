"""Processes that read and prepare pictures, each fed by a thread of ours: what they cannot do, the thread does itself.

One process is started, gets the encoder without its network, and forks into as many as are wanted (`fewshot.decoding`).
Each of these gets chunks of jobs as JSON through a pipe and answers with JSON through another, so that nothing that
comes from there is unpickled. Its pixels come in memory that both share: through a pipe they would come in small
pieces, for each of which a thread waits for Python's lock. It ends when its pipe does, so it does not outlive a killed
parent. We are not forked ourselves: beside a GPU and threads that is asking for trouble.
"""

from __future__ import annotations

import copyreg
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
from typing import IO, Any, NamedTuple

from torch import Tensor, nn

from fewshot.shared import Answer, Shared, receive, unnamed_file

Job = Any  # what `work` takes; what is no JSON, but for paths, is done here
LOST = (OSError, EOFError, ValueError)  # what talking to a process that has ended may raise
SMALL = 4096  # elements of a tensor that travels with the encoder: means and deviations, not weights
ENDING = 5.0  # seconds that the processes get for it


class Worker(NamedTuple):
    """What we have of a process: where its jobs go, where its answers come from, and the memory with its pixels."""

    jobs: IO[bytes]
    answers: IO[bytes]
    shared: Shared


class Decoders:
    """Some processes that each do `work(encoder, jobs)`; leaves at the end of a `with` block."""

    def __init__(self, work: Callable[[Any, list[Job]], Answer], encoder: object, count: int) -> None:
        self._work, self._encoder = work, encoder
        self._ready: SimpleQueue[Worker] = SimpleQueue()
        self._workers: list[Worker] = []
        self._first: subprocess.Popen[bytes] | None = None
        self.pids: list[int] = []  # of the processes that are ready or were so once
        try:
            setup = hollow((work, encoder))
        except (pickle.PicklingError, TypeError, AttributeError):  # a lock, a local function ... cannot travel
            return
        if getattr(sys, "frozen", False) or not sys.executable:  # then there is no Python to start
            return
        theirs: list[int] = []  # descriptors, three a process
        with suppress(OSError):  # not enough descriptors for another
            for _ in range(count):
                theirs += self._opened()
        if theirs:
            self._start(theirs, setup)

    def __enter__(self) -> Decoders:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        if self._first is not None:
            self._first.terminate()  # which kills the others
            try:
                self._first.wait(ENDING)
            except subprocess.TimeoutExpired:
                self._first.kill()
                self._first.wait()
        for worker in self._workers:
            for pipe in (worker.jobs, worker.answers):
                with suppress(OSError):  # what could not be written to one that was killed
                    pipe.close()

    def do(self, jobs: list[Job]) -> Answer:
        """Have a process that is ready do the jobs, or do them here: while none is, or where one fails."""
        try:
            message = json.dumps(jobs, default=_path).encode() + b"\n"
            worker = self._ready.get_nowait()
        except (TypeError, Empty):
            return self._work(self._encoder, jobs)
        try:
            worker.jobs.write(message)
            worker.jobs.flush()
            found = receive(worker.answers, worker.shared)
        except LOST:  # it was killed; its place stays empty
            return self._work(self._encoder, jobs)
        self._ready.put(worker)
        return found or self._work(self._encoder, jobs)

    def _opened(self) -> list[int]:
        """Open what we have of a process, and return what it will have: its ends of the pipes, and the memory."""
        shared = Shared(unnamed_file())
        jobs, ours = os.pipe()
        try:
            answers, theirs = os.pipe()
        except OSError:
            os.close(jobs)
            os.close(ours)
            raise
        self._workers.append(Worker(os.fdopen(ours, "wb"), os.fdopen(answers, "rb"), shared))
        return [jobs, theirs, shared.descriptor]

    def _start(self, theirs: list[int], setup: bytes) -> None:
        """Start the first process, which forks, and wait for all of them in threads."""
        paths = os.pathsep.join(p for p in sys.path if p)
        alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            self._first = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "fewshot.decoding", json.dumps(theirs)],
                stdin=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **alone},
                start_new_session=True,  # Ctrl-C is for the parent
                pass_fds=theirs,
            )
        except (OSError, ValueError):  # no memory; no such thing on Windows
            return
        finally:
            for jobs, answers, _ in zip(*[iter(theirs)] * 3, strict=True):
                os.close(jobs)
                os.close(answers)
        threading.Thread(target=self._set_up, args=(setup,), daemon=True).start()
        for worker in self._workers:
            threading.Thread(target=self._await, args=(worker,), daemon=True).start()

    def _set_up(self, setup: bytes) -> None:
        assert self._first is not None
        assert self._first.stdin is not None
        with suppress(OSError), self._first.stdin as pipe:  # it has ended
            pipe.write(setup)

    def _await(self, worker: Worker) -> None:
        """Count a process among those that are ready once it says so."""
        with suppress(*LOST):  # it could not begin
            found = receive(worker.answers, worker.shared)
            if found is not None:
                self.pids.append(found[0])
                self._ready.put(worker)


def _path(thing: object) -> str:
    if isinstance(thing, Path):
        return str(thing)
    raise TypeError(f"{type(thing).__name__} cannot travel")


class _Hollow(pickle.Pickler):
    def persistent_id(self, thing: object) -> str | None:
        if isinstance(thing, nn.Module):  # a network, or a step of the preprocessing, which holds next to nothing
            held = [*thing.parameters(), *thing.buffers()]
        else:
            held = [thing] if isinstance(thing, Tensor) else []
        heavy = any(tensor.device.type != "cpu" for tensor in held) or sum(tensor.numel() for tensor in held) > SMALL
        return "left out" if heavy else None

    def reducer_override(self, thing: object) -> Any:
        left_out = getattr(type(thing), "not_for_preparing", ())
        if not left_out:
            return NotImplemented
        state = {name: None if name in left_out else value for name, value in vars(thing).items()}
        return copyreg.__newobj__, (type(thing),), state  # type: ignore[attr-defined]


def hollow(thing: object) -> bytes:
    """Pickle something, with None in place of networks, large tensors and what preparing does without."""
    out = io.BytesIO()
    _Hollow(out).dump(thing)
    return out.getvalue()
