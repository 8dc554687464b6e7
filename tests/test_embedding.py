"""The threaded stream equals one picture after another, in bounded memory, whatever lies between good pictures."""

import itertools
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from fewshot.embedding import embed_images, stream
from fewshot.encoders import load_encoder
from fewshot.errors import InvalidOption, MissingInput, PluginError
from fewshot.images import content_hash, open_image

PHOTOS = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.camera()]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("toy", "cpu")


def write(folder, count):
    paths = []
    for i in range(count):
        path = folder / f"p {i}.png"
        Image.fromarray(np.roll(PHOTOS[i % len(PHOTOS)][:64, : 40 + i], i)).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_equals_one_by_one(encoder, tmp_path, batch):
    paths = write(tmp_path, 11)
    got = embed_images(encoder, paths, batch=batch)
    want = torch.cat([encoder.encode_images([open_image(path)]) for path in paths])
    torch.testing.assert_close(got.embeddings, want)
    assert (got.kept, got.skipped) == (list(range(11)), [])


def test_sources_of_every_kind(encoder, tmp_path):
    (path,) = write(tmp_path, 1)
    got = embed_images(encoder, [path, str(path), path.read_bytes(), Image.open(path), np.asarray(Image.open(path))])
    assert got.kept == [0, 1, 2, 3, 4]
    torch.testing.assert_close(got.embeddings, got.embeddings[:1].expand(5, -1))


def test_bad_pictures_are_skipped_with_their_reason(encoder, tmp_path, capsys):
    good = write(tmp_path, 2)
    (tmp_path / "empty.jpg").touch()
    sources = [tmp_path / "empty.jpg", good[0], b"no picture", good[1], tmp_path / "missing.png"]
    got = embed_images(encoder, sources, batch=2, progress=True)
    assert got.kept == [1, 3]
    assert [(s.position, s.reason) for s in got.skipped] == [
        (0, "empty file"),
        (2, "not a picture"),
        (4, "no such file"),
    ]
    line = capsys.readouterr().err
    assert line.startswith("2 images in ")
    assert "on cpu" in line
    assert "images/s" in line
    assert "3 skipped" in line
    assert line.count("\n") == 1


def test_nothing_gives_nothing(encoder, capsys):
    assert embed_images(encoder, []).embeddings.shape == (0, 64)
    assert embed_images(encoder, [b"x"]).embeddings.shape == (0, 64)
    assert capsys.readouterr().err == ""


def test_a_stream_takes_sources_only_as_it_needs_them(encoder):
    taken = 0

    def endless():
        nonlocal taken
        for _ in itertools.count():
            taken += 1
            yield PHOTOS[0][:8, :8]

    batches = stream(encoder, endless(), batch=4, workers=2)
    for number in range(1, 6):
        assert len(next(batches).kept) == 4
        assert taken <= 4 * (number + 1) + 2 * 4 + 2  # one batch more is being encoded
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith(("decode", "encode"))]


def test_known_content_is_not_embedded_again(encoder, tmp_path):
    a, b, c = write(tmp_path, 3)
    copy = tmp_path / "copy of b.png"
    copy.write_bytes(b.read_bytes())
    (batch,) = stream(encoder, [a, b, copy, c], batch=8, known={content_hash(a)}.intersection)
    assert batch.kept == [1, 3]
    assert batch.digests == [content_hash(b), content_hash(c)]
    assert batch.known == [(0, content_hash(a)), (2, content_hash(b))]
    assert batch.embeddings.shape == (2, 64)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_copy_in_a_later_batch_is_known(encoder, tmp_path, batch):
    """Also in the one that is put together before the caller has got the first."""
    a, b, c = write(tmp_path, 3)
    sources = [a, b, a, b, c, a, c, b]
    known, found, order = set(), [], []
    for part in stream(encoder, sources, batch=batch, known=known.intersection):
        assert not known & set(part.digests)
        known.update(part.digests)
        found += part.digests
        order += [*part.kept, *(position for position, _ in part.known)]
    assert found == [content_hash(path) for path in (a, b, c)]
    assert sorted(order) == list(range(8))


def test_an_error_in_the_encoder_is_not_swallowed(encoder, monkeypatch):
    monkeypatch.delenv("FEWSHOT_STRICT_PLUGINS", raising=False)
    monkeypatch.setattr(encoder, "prepare", lambda image: 1 / 0)
    with pytest.raises(PluginError, match="encoder 'toy' failed: ZeroDivisionError"):
        embed_images(encoder, [PHOTOS[0]])


def test_wrong_use(encoder, monkeypatch):
    with pytest.raises(InvalidOption, match="batch"):
        embed_images(encoder, [PHOTOS[0]], batch=0)
    monkeypatch.setattr(type(encoder), "modalities", frozenset({"text"}))
    with pytest.raises(MissingInput, match="takes no images"):
        embed_images(encoder, [PHOTOS[0]])
