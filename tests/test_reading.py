"""With processes the stream is what it is with threads alone, in order, and leaves none behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

from fewshot import reading
from fewshot.decoders import Decoders
from fewshot.embedding import Batch, embed_images, stream
from fewshot.encoders import Encoder, load_encoder
from fewshot.errors import PluginError
from fewshot.images import content_hash


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes read few pictures, five at a time."""
    for name, value in {"MANY": 20, "CORES": 2, "CHUNK": 5}.items():
        monkeypatch.setattr(reading, name, value)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Decoders]:
    """Have every process ready before it is asked, and note them."""
    made: list[Decoders] = []

    class Ready(Decoders):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            made.append(self)
            for worker in [self._ready.get(timeout=60) for _ in self._workers]:
                self._ready.put(worker)

    monkeypatch.setattr(reading, "Decoders", Ready)
    return made


@pytest.fixture
def encoder() -> Encoder:
    """An encoder that says that it is on a GPU."""
    made = load_encoder("toy", "cpu")
    made.device = torch.device("cuda")
    return made


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Forty files: a broken one, an empty one, a copy, and pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    made = [folder / f"{i:02}.png" for i in range(40)]
    for i, path in enumerate(made):
        Image.fromarray(data.astronaut()[i * 5 : i * 5 + 60, i : 90 + i]).save(path)
    made[11].write_bytes(b"no picture")
    made[12].write_bytes(b"")
    made[30].write_bytes(made[20].read_bytes())
    return made


def all_of(encoder: Encoder, paths: list[Path]) -> list[Batch]:
    known: set[str] = set()
    found = []
    for part in stream(encoder, paths, batch=7, workers=2, known=known.intersection):
        known.update(part.digests)
        found.append(part)
    return found


def test_it_is_the_stream_of_threads(encoder: Encoder, paths: list[Path], asked: list[Decoders]) -> None:
    found = all_of(encoder, paths)
    assert [len(decoders.pids) for decoders in asked] == [2]
    assert asked[0]._first is not None
    assert asked[0]._first.returncode is not None
    for one, other in zip(found, all_of(load_encoder("toy", "cpu"), paths), strict=True):
        assert torch.equal(one.embeddings, other.embeddings)
        assert (one.kept, one.digests, one.known) == (other.kept, other.digests, other.known)
        assert one.skipped == other.skipped
    assert sum(len(part.kept) for part in found) == 37
    assert [at for part in found for at, _ in part.known] == [30]
    assert [(s.position, s.reason) for part in found for s in part.skipped] == [
        (11, "not a picture"),
        (12, "empty file"),
    ]


def test_pictures_in_memory_and_no_hashes(encoder: Encoder, paths: list[Path], asked: list[Decoders]) -> None:
    sources = [path if i % 2 else Image.open(path) for i, path in enumerate(paths) if i not in (11, 12)]
    found = [*stream(encoder, sources, batch=9, workers=2)]
    assert [at for part in found for at in part.kept] == [*range(38)]
    wanted = embed_images(load_encoder("toy", "cpu"), paths).embeddings
    torch.testing.assert_close(torch.cat([part.embeddings for part in found]), wanted)  # in other batches
    assert len(asked) == 1


def test_known_content_is_left_out(encoder: Encoder, paths: list[Path]) -> None:
    known = {content_hash(path) for path in paths[20:25]}
    (part,) = stream(encoder, paths[13:], batch=99, workers=2, known=known.intersection)
    assert [at for at, _ in part.known] == [7, 8, 9, 10, 11, 17]
    assert len(part.kept) == 21


@pytest.mark.parametrize(
    ("total", "workers", "device"),
    [
        (19, 2, "cuda"),  # few pictures
        (None, 1, "cuda"),  # one core
        (None, 2, "cpu"),
    ],
)
def test_when_threads_are_enough(
    encoder: Encoder, paths: list[Path], asked: list[Decoders], total: int | None, workers: int, device: str
) -> None:
    encoder.device = torch.device(device)
    parts = stream(encoder, paths[13:32], batch=8, workers=workers, total=total)
    assert sum(len(part.kept) for part in parts) == 19
    assert not asked


def test_processes_take_over_once_they_are_ready(
    encoder: Encoder, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Decoders] = []
    sizes: list[int] = []

    class Noted(Decoders):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            made.append(self)

        def do(self, jobs: list) -> object:
            sizes.append(len(jobs))
            return super().do(jobs)

    def sources() -> Iterator[Path]:
        yield paths[0]
        while not made[0].pids:
            yield paths[1]
        yield from paths

    monkeypatch.setattr(reading, "Decoders", Noted)
    monkeypatch.setattr(reading, "FEW", 2)
    parts = [*stream(encoder, sources(), batch=8, workers=2)]
    positions = [at for part in parts for at in part.kept]
    assert positions == sorted(positions)
    assert sizes[0] == 2
    assert 5 in sizes


def test_an_error_in_the_encoder_is_not_swallowed(
    encoder: Encoder, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEWSHOT_STRICT_PLUGINS", raising=False)
    monkeypatch.setattr(encoder, "prepare", lambda image: 1 / 0)
    with pytest.raises(
        PluginError, match=r"encoder 'toy' failed: ZeroDivisionError: division by zero \(.*, line \d+\)"
    ):
        [*stream(encoder, paths, batch=8, workers=2)]


def test_nothing_is_left_when_the_stream_is_closed(encoder: Encoder, paths: list[Path], asked: list[Decoders]) -> None:
    parts = stream(encoder, paths * 3, batch=4, workers=2)
    assert len(next(parts).kept) == 4
    assert asked[0]._first is not None
    assert asked[0]._first.poll() is None
    parts.close()
    assert asked[0]._first.poll() is not None
    for pid in asked[0].pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
