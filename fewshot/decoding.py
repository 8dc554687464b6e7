"""The processes of `fewshot.decoders`: the first loads what takes long, torch, and forks, which is quick and shares it.

It is a plain `python -m`, so that no script is run a second time. It forks before it loads the encoder: what that
imports may start threads, and then forking is asking for trouble.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import sys
from contextlib import suppress

import torch

from fewshot.images import memory_kept
from fewshot.shared import Shared, line, send


class Filled(pickle.Unpickler):
    """Reads what `fewshot.decoders.hollow` wrote."""

    def persistent_load(self, _: str) -> None:
        """Put None where something was left out."""
        return


def serve(setup: bytes, jobs: int, answers: int, shared: Shared) -> None:
    """Do the jobs that come through a pipe until it ends."""
    try:
        work, encoder = Filled(io.BytesIO(setup)).load()
    except Exception:  # noqa: BLE001 - such as a class of a script, which is not there for us: the parent does without
        return
    with os.fdopen(jobs, "rb") as asked, os.fdopen(answers, "wb") as answer, memory_kept():
        send(answer, shared, os.getpid(), torch.zeros(0))
        while True:
            try:
                given = json.loads(line(asked))
            except EOFError:
                return
            try:
                send(answer, shared, *work(encoder, given))
            except Exception:  # noqa: BLE001 - whatever it is, the parent meets it when it does the job itself
                send(answer, shared, None)


def fork(setup: bytes, places: list[tuple[int, int, Shared]]) -> list[int]:
    """Start a process for each place and return their numbers; they do not return."""
    pids = []
    for place in places:
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        try:
            for jobs, answers, _ in places:
                if jobs != place[0]:  # else nobody would see that another has ended
                    os.close(jobs)
                    os.close(answers)
            with suppress(BrokenPipeError):  # the parent has ended
                serve(setup, *place)
        finally:
            os._exit(0)
    for jobs, answers, _ in places:
        os.close(jobs)
        os.close(answers)
    return pids


def main() -> None:
    """Fork, with what comes on standard input, once for every three descriptors that are given; wait for them all."""
    torch.set_num_threads(1)
    os.dup2(2, 1)  # whatever is printed is none of the parent's output
    os.nice(5)  # the threads that wait for what is decoded come first
    given = iter(json.loads(sys.argv[1]))
    places = [(jobs, answers, Shared(memory)) for jobs, answers, memory in zip(given, given, given, strict=True)]
    pids = fork(sys.stdin.buffer.read(), places)

    def end(*_: object) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    while pids:
        os.waitpid(pids[0], 0)
        pids.pop(0)  # its number may be another's now
    os._exit(0)  # Python would take half a second to tidy up


if __name__ == "__main__":
    main()
