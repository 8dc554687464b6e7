"""An index follows its folders: new files are embedded, known ones are not, and a kill costs nothing committed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from fewshot.build import build_index, update
from fewshot.encoders import load_encoder
from fewshot.encoders.toy import ToyEncoder
from fewshot.errors import DataError, FewshotError, MissingInput, OutputExists, UnknownName
from fewshot.images import open_image
from fewshot.removal import remove
from fewshot.store import Store

PHOTO = data.astronaut()


@pytest.fixture
def photos(tmp_path):
    """Two classes with three pictures each, one picture in no class, a copy, and two files that are no pictures."""
    root = tmp_path / "phötos of mine"
    for i, name in enumerate(
        ["cat/1.png", "cat/2.jpg", "cat/old/3.png", "dog/4.png", "dog/5 5.png", "dog/6.png", "7.png"]
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PHOTO[i * 60 : i * 60 + 80, i * 50 : i * 50 + 90]).save(root / name)
    shutil.copy(root / "cat" / "1.png", root / "dog" / "copy of 1.png")
    (root / "dog" / "empty.jpg").touch()
    (root / "dog" / "text.jpg").write_text("no picture")
    return root


def build(root, out, **options):
    counts = build_index([root], out, encoder="toy", device="cpu", **options)
    return counts.embedded, counts.copies, counts.unchanged, counts.skipped, counts.gone


def contents(out):
    """Path to (label, embedding), after a check of every byte."""
    with Store.open(out) as store:
        rows = store.embeddings(verify=True)
        return {entry.path: (entry.label, rows[entry.row]) for entry in store.entries()}


def touch_later(path):
    info = path.stat()
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns + 10**9))


def test_every_picture_has_its_label_and_its_embedding(photos, tmp_path):
    assert build(photos, tmp_path / "index", batch=3) == (7, 1, 0, 2, 0)
    found = contents(tmp_path / "index")
    labels = {Path(path).name: label for path, (label, _) in found.items()}
    assert sorted(name for name, label in labels.items() if label == "cat") == ["1.png", "2.jpg", "3.png"]
    dogs = sorted(name for name, label in labels.items() if label == "dog")
    assert dogs == ["4.png", "5 5.png", "6.png", "copy of 1.png"]
    assert labels["7.png"] is None
    encoder = ToyEncoder(torch.device("cpu"))
    for path, (_, embedding) in found.items():
        want = encoder.encode_images([open_image(path)])[0]
        np.testing.assert_allclose(embedding, want.numpy(), atol=1e-6)
    with Store.open(tmp_path / "index") as store:
        assert store.rows == 7
        assert {(Path(p).name, reason) for p, reason in store.skipped()} == {
            ("empty.jpg", "empty file"),
            ("text.jpg", "not a picture"),
        }


def test_unchanged_files_are_neither_read_nor_embedded(photos, tmp_path, monkeypatch):
    build(photos, tmp_path / "index")
    (photos / "dog" / "empty.jpg").unlink()  # an empty file has no content to remember, so it is always tried again

    def forbidden(*args):
        raise AssertionError("a file was read, or the encoder loaded")

    monkeypatch.setattr("fewshot.reading.read_file", forbidden)
    monkeypatch.setattr(ToyEncoder, "create", forbidden)
    assert build(photos, tmp_path / "index") == (0, 0, 8, 1, 1)
    with Store.open(tmp_path / "index") as store:
        generation = store.generation
    assert build(photos, tmp_path / "index") == (0, 0, 8, 1, 0)
    with Store.open(tmp_path / "index") as store:
        assert store.generation == generation


def test_changes_are_followed(photos, tmp_path):
    out = tmp_path / "index"
    build(photos, out)
    touch_later(photos / "cat" / "1.png")  # another time, the same content
    Image.fromarray(PHOTO[:50, :50]).save(photos / "cat" / "2.jpg")
    Image.fromarray(PHOTO[90:150, :50]).save(photos / "dog" / "new.png")
    (photos / "7.png").unlink()
    shutil.copy(photos / "cat" / "2.jpg", photos / "dog" / "text.jpg")
    shutil.move(photos / "dog" / "4.png", photos / "cat" / "4.png")
    assert build(photos, out) == (2, 3, 4, 1, 2)
    found = {str(Path(p).relative_to(photos)): label for p, (label, _) in contents(out).items()}
    assert found.pop("cat/4.png") == "cat"
    assert "dog/4.png" not in found
    assert "7.png" not in found
    want = ToyEncoder(torch.device("cpu")).encode_images([open_image(photos / "cat" / "2.jpg")])[0]
    np.testing.assert_allclose(contents(out)[str(photos / "cat" / "2.jpg")][1], want.numpy(), atol=1e-6)


def test_files_elsewhere_and_of_any_suffix_stay(photos, tmp_path):
    out = tmp_path / "index"
    build(photos / "cat", out)
    odd = photos / "dog" / "picture without suffix"
    shutil.copy(photos / "dog" / "6.png", odd)
    with Store.open(out, write=True) as store:
        counts = update(store, [odd], label="odd one", encoder=load_encoder("toy", "cpu"))
        assert (counts.embedded, counts.gone) == (1, 0)
    build(photos / "dog", out)
    with Store.open(out) as store:
        assert store.labels() == {None: 6, "odd one": 1, "old": 1}  # cat/ and dog/ were the folders given


def test_a_label_that_was_given_stays_when_the_picture_changes(photos, tmp_path):
    out, path = tmp_path / "index", photos / "7.png"
    build(photos, out)
    with Store.open(out, write=True) as store:
        update(store, [path], label="bird", encoder=ToyEncoder(torch.device("cpu")))
        Image.fromarray(PHOTO[:30, :30]).save(path)
        for roots in ([photos], [path]):
            update(store, roots, encoder=ToyEncoder(torch.device("cpu")))
            assert {e.path: e.label for e in store.entries()}[str(path)] == "bird"
    path.write_bytes(b"no picture")
    build(photos, out)
    Image.fromarray(PHOTO[:40, :30]).save(path)
    build(photos, out)
    assert contents(out)[str(path)][0] == "bird"


def test_a_missing_folder_or_one_without_pictures_changes_nothing(photos, tmp_path):
    out = tmp_path / "index"
    (tmp_path / "empty").mkdir()
    for bad in ("empty", "nowhere"):
        with pytest.raises(DataError, match=bad):
            build(tmp_path / bad, out)
        assert not out.exists()
    build(photos, out)
    shutil.rmtree(photos)
    photos.mkdir()  # like a disk that is not mounted
    with pytest.raises(DataError, match="no images found"):
        build(photos, out)
    assert len(contents(out)) == 8


def test_output_that_is_something_else(photos, tmp_path, monkeypatch):
    with pytest.raises(OutputExists, match="is not an index"):
        build(photos, photos)
    monkeypatch.setattr(ToyEncoder, "modalities", frozenset({"text"}))
    with pytest.raises(MissingInput, match="takes no images"):
        build(photos, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_removal(photos, tmp_path, monkeypatch):
    out = tmp_path / "index"
    build(photos, out)
    monkeypatch.chdir(photos)
    with Store.open(out, write=True) as store:
        for target in ("nothing like this", "*.gif"):
            with pytest.raises(DataError, match="nothing was removed"):
                remove(store, ["7.png", target])
        with pytest.raises(UnknownName, match="label"):
            remove(store, ["7.png"], ["cow"])
        assert len(store.entries()) == 8
        assert remove(store, ["7.png"]) == 1
        assert remove(store, ["cat/old"]) == 1
        assert remove(store, ["*copy of*"]) == 1
        assert remove(store, ["dog/*.png"], ["cat"]) == 5
        assert store.entries() == []
    assert build(photos, out) == (0, 8, 0, 2, 0)  # the embeddings were kept


def test_an_interrupted_build_goes_on(photos, tmp_path, monkeypatch):
    out = tmp_path / "index"
    real, calls = ToyEncoder.encode_prepared, []

    def interrupted(self, batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(ToyEncoder, "encode_prepared", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(photos, out, batch=2)
    assert len(contents(out)) >= 4
    embedded, _, unchanged, _, _ = build(photos, out, batch=2)
    assert embedded == 3
    assert sum(calls) in (7 + 2, 7 + 3)  # the batch after the one that was cut off may have begun
    assert unchanged >= 4
    assert len(contents(out)) == 8


BUILD_SLOWLY = """
import sys, time
from fewshot.build import build_index
from fewshot.encoders.toy import ToyEncoder
real = ToyEncoder.encode_prepared
ToyEncoder.encode_prepared = lambda self, batch: (time.sleep(0.05), real(self, batch))[1]
build_index([sys.argv[1]], sys.argv[2], encoder="toy", device="cpu", batch=2)
"""


@pytest.mark.slow
def test_kill_9_in_the_middle_loses_nothing_committed(tmp_path):
    root, out = tmp_path / "photos", tmp_path / "index"
    root.mkdir()
    for i in range(60):
        Image.fromarray(PHOTO[i : i + 40, :40]).save(root / f"{i:03}.png")
    child = subprocess.Popen([sys.executable, "-c", BUILD_SLOWLY, root, out], stderr=subprocess.DEVNULL)
    committed = 0
    while committed < 20 and child.poll() is None:
        time.sleep(0.02)
        with contextlib.suppress(FewshotError), Store.open(out) as store:  # at first there is none
            committed = store.rows
    assert child.poll() is None, "the build ended before it could be killed"
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = len(contents(out))
    assert 20 <= kept < 60
    embedded, copies, unchanged, skipped, gone = build(root, out)
    assert (embedded + unchanged, copies, skipped, gone) == (60, 0, 0, 0)
    assert unchanged == kept
    encoder = ToyEncoder(torch.device("cpu"))
    for path, (_, embedding) in contents(out).items():
        np.testing.assert_allclose(embedding, encoder.encode_images([open_image(path)])[0].numpy(), atol=1e-6)


def test_names_that_are_not_unicode_are_listed(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    Image.fromarray(PHOTO[:9, :9]).save(root / "good.png")
    shutil.copy(os.fsencode(root / "good.png"), os.fsencode(root) + b"/caf\xe9.png")
    for _ in range(2):
        build(root, tmp_path / "index")
        with Store.open(tmp_path / "index") as store:
            assert [Path(path).name for path, _ in store.skipped()] == ["caf\\xe9.png"]
            assert len(store.entries()) == 1


def test_folders_that_cannot_be_listed_are_named_until_they_can(photos, tmp_path, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    build(photos, tmp_path / "index")
    with Store.open(tmp_path / "index") as store:
        assert store.skipped() == [(str(photos / "dog"), "a folder that cannot be listed")]
    monkeypatch.undo()
    build(photos, tmp_path / "index")
    with Store.open(tmp_path / "index") as store:
        assert len(store.entries()) == 8
        assert len(store.skipped()) == 2


def test_a_root_without_pictures_beside_others_loses_none(photos, tmp_path):
    other, out = tmp_path / "other", tmp_path / "out"
    shutil.copytree(photos, other)
    before = build_index([photos, other], out, encoder="toy", device="cpu")
    other.rename(tmp_path / "elsewhere")
    other.mkdir()  # as where nothing is mounted
    counts = build_index([photos, other], out, device="cpu")
    assert (counts.gone, counts.embedded, counts.relabelled) == (0, 0, 0)
    assert counts.unseen + counts.unchanged + counts.skipped >= before.embedded + before.copies
    assert f"{counts.unseen} kept" in str(counts)
    other.rmdir()
    (tmp_path / "elsewhere").rename(other)
    counts = build_index([photos, other], out, device="cpu")
    assert (counts.gone, counts.unseen, counts.embedded) == (0, 0, 0)


def test_pictures_behind_a_link_to_nowhere_stay(photos, tmp_path):
    away, out = tmp_path / "away", tmp_path / "out"
    shutil.copytree(photos, away)
    (photos / "linked").symlink_to(away)
    build(photos, out)
    before = contents(out).keys()
    away.rename(tmp_path / "gone")
    counts = build_index([photos], out, device="cpu")
    assert counts.gone == 0 < counts.unseen
    assert contents(out).keys() == before
    (photos / "linked").unlink()  # without the link they are gone
    assert build_index([photos], out, device="cpu").gone == counts.unseen > 0


def test_labels_that_change_are_counted(photos, tmp_path):
    out = tmp_path / "out"
    build(photos, out)
    with Store.open(out, write=True) as store:
        labelled = update(store, [photos], label="mine")
        assert labelled.relabelled == sum(store.labels().values()) == store.labels()["mine"]
    assert f"{labelled.relabelled} relabelled" in str(labelled)
    again = build_index([photos], out, device="cpu")
    assert 0 < again.relabelled <= labelled.relabelled
    assert build_index([photos], out, device="cpu").relabelled == 0
