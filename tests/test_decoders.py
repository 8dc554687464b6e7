"""Processes do the work; what they cannot do is done here; none outlives its parent."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

from decoder_work import refuses, squares
from fewshot.decoders import Decoders, hollow
from fewshot.decoding import Filled
from fewshot.encoders import load_encoder
from fewshot.encoders.spread import SpreadEncoder
from tiny_models import clip_file, timm_file

__all__ = ["clip_file", "timm_file"]

PATIENCE = 60.0


def wait_until(so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has asked after yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_they_do_the_work_whatever_it_prints() -> None:
    with Decoders(squares, torch.tensor(1), 2) as decoders:
        first, found = decoders.do([3, 4])
        assert first == os.getpid()  # none is ready yet
        assert found.tolist() == [10, 17]
        wait_until(lambda: decoders._ready.qsize() == 2)
        pids = set()
        for jobs in ([1, 2], [3], []):
            pid, found = decoders.do(jobs)
            pids.add(pid)
            assert found.tolist() == [job * job + 1 for job in jobs]
        assert pids == set(decoders.pids)
        with pytest.raises(ArithmeticError):  # of this process, which has tried as well
            decoders.do([7])
        assert decoders.do([2])[1].tolist() == [5]
        wait_until(lambda: decoders._ready.qsize() == 2)
    assert all(gone(pid) for pid in pids)


def test_many_threads_at_once() -> None:
    with Decoders(refuses, torch.tensor(os.getpid()), 2) as decoders:
        wait_until(lambda: decoders._ready.qsize() == 2)
        found: list[list[int]] = []

        def ask(first: int) -> None:
            found.extend(decoders.do([first + i])[1].tolist() for i in range(50))

        threads = [threading.Thread(target=ask, args=(1000 * n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [[1000 * n + i] for n in range(2) for i in range(50)]


def test_a_killed_one_is_not_missed() -> None:
    with Decoders(squares, torch.tensor(0), 1) as decoders:
        wait_until(lambda: decoders._ready.qsize() == 1)
        os.kill(decoders.pids[0], signal.SIGKILL)
        wait_until(lambda: gone(decoders.pids[0]))
        for _ in range(2):
            pid, found = decoders.do([5])
            assert (pid, found.tolist()) == (os.getpid(), [25])


@pytest.mark.parametrize("executable", ["", None, "/nowhere/python"])
def test_none_is_started_without_a_python(executable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with Decoders(squares, torch.tensor(0), 2) as decoders:
        assert decoders._first is None
        assert decoders.do([3])[1].tolist() == [9]


def test_the_current_folder_is_not_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('shadow')")
    monkeypatch.chdir(tmp_path)
    with Decoders(squares, torch.tensor(0), 1) as decoders:
        wait_until(lambda: decoders._ready.qsize() == 1)


@pytest.mark.parametrize("what", [threading.Lock(), lambda: 0])
def test_what_cannot_travel_stays_here(what: object) -> None:
    with Decoders(lambda _, jobs: (os.getpid(), torch.tensor(jobs)), what, 2) as decoders:
        assert decoders._first is None
        assert decoders.do([5])[0] == os.getpid()
    with Decoders(lambda: 0, 0, 1) as decoders:  # type: ignore[arg-type]
        assert decoders._first is None


def test_a_job_that_cannot_travel_is_done_here() -> None:
    with Decoders(squares, torch.tensor(0), 1) as decoders:
        wait_until(lambda: decoders._ready.qsize() == 1)
        with pytest.raises(RuntimeError, match=r"_thread\.lock"):  # what `squares` makes of it, here
            decoders.do([threading.Lock()])
        assert decoders.do([3])[0] == decoders.pids[0]


@pytest.mark.parametrize(
    "name", ["toy", "lite", "lite:fast", "lite:stage6", "clip:tiny-clip@{clip}", "timm:test_resnet@{timm}"]
)
def test_encoders_travel_without_their_networks(name: str, clip_file: Path, timm_file: Path) -> None:
    encoder = load_encoder(name.format(clip=clip_file, timm=timm_file), "cpu")
    picture = Image.fromarray(data.coffee())
    for one in (encoder, SpreadEncoder([encoder, encoder])):
        packed = hollow(one)
        assert len(packed) < 5_000_000
        there = Filled(io.BytesIO(packed)).load()
        assert torch.equal(there.prepare(picture), encoder.prepare(picture))


LOADS = """
import sys
from fewshot.decoding import Filled
Filled(sys.stdin.buffer).load()
print(*{"open_clip", "timm", "torchvision", "transformers", "tokenizers"} & sys.modules.keys())
"""


@pytest.mark.parametrize("name", ["lite", "clip:tiny-clip@{clip}", "timm:test_resnet@{timm}"])
def test_a_process_does_without_the_packages_of_the_network(name: str, clip_file: Path, timm_file: Path) -> None:
    encoder = load_encoder(name.format(clip=clip_file, timm=timm_file), "cpu")
    packed = hollow(SpreadEncoder([encoder]))
    if "text" in encoder.modalities:
        assert encoder.encode_texts(["a cat"]).shape == (1, encoder.dim)  # nothing was taken from it
    run = subprocess.run([sys.executable, "-c", LOADS], input=packed, capture_output=True, check=True, timeout=PATIENCE)
    assert run.stdout.split() == []


def test_networks_and_large_tensors_are_left_out() -> None:
    assert len(hollow((nn.Linear(1000, 1000), torch.zeros(100_000), torch.zeros(9)))) < 2000


PARENT = """
import os, signal, sys, time
import torch
from decoder_work import squares
from fewshot.decoders import Decoders
with Decoders(squares, torch.tensor(0), 2) as decoders:
    while decoders._ready.qsize() < 2:
        time.sleep(0.02)
    print(decoders._first.pid, *decoders.pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_they_end_with_a_killed_parent() -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", PARENT],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3
    wait_until(lambda: all(gone(pid) for pid in pids))
