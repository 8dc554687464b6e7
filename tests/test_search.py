"""Searching an index by text and picture gives the pictures a brute-force comparison gives."""

import base64
import io
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from fewshot.build import build_index
from fewshot.encoders import load_encoder
from fewshot.errors import (
    DataError,
    FingerprintMismatch,
    ImageError,
    InvalidOption,
    MissingInput,
    OutputError,
    OutputExists,
    UnknownName,
)
from fewshot.images import find_images, open_image
from fewshot.search import Searcher, query
from fewshot.sheet import Section, thumbnail, write_sheet


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("my photos")
    for name in ("astronaut", "coffee", "chelsea", "rocket", "camera"):
        (root / name).mkdir()
        pixels = getattr(data, name)()
        for i in range(3):
            Image.fromarray(pixels[i * 40 :, : 300 - i * 50]).resize((64, 64)).save(root / name / f"{i} ü.png")
    (root / "twins").mkdir()
    shutil.copy(root / "coffee" / "0 ü.png", root / "twins" / "coffee.png")
    return root


@pytest.fixture(scope="module")
def index(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "index"
    build_index([photos], out, encoder="toy", device="cpu")
    return out


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("toy", "cpu")


def by_hand(photos, encoder, vector, folders=None):
    """Paths sorted by score, and scores, over all files one by one."""
    paths = [p for p in find_images(photos) if folders is None or p.parent.name in folders]
    scores = np.array([float(encoder.encode_images([open_image(p)])[0] @ vector) for p in paths])
    order = np.argsort(-scores, kind="stable")
    return [str(paths[i]) for i in order], scores[order]


@pytest.mark.parametrize("text", ["red and blue", "a white thing", "no colour at all"])
def test_text(photos, index, encoder, text):
    (hits,) = query(index, [text], top=6, encoder=encoder)
    paths, scores = by_hand(photos, encoder, encoder.encode_texts([text])[0])
    np.testing.assert_allclose([hit.score for hit in hits], scores[:6], atol=1e-5)
    assert {hit.path for hit in hits if hit.score > scores[6] + 1e-5} <= set(paths[:6])
    assert all(hit.label == Path(hit.path).parent.name for hit in hits)


def test_pictures_of_every_kind_several_at_once(photos, index, encoder):
    path = photos / "rocket" / "1 ü.png"
    answers = query(index, [str(path), path, path.read_bytes(), Image.open(path), "red"], top=3, encoder=encoder)
    assert len(answers) == 5
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert answers[0][0].path == str(path)
    assert answers[0][0].score == pytest.approx(1, abs=1e-5)
    assert query(index, [], encoder=encoder) == []


def test_only_some_labels(photos, index, encoder):
    for labels in (["camera"], ["camera", "chelsea"]):
        (hits,) = query(index, ["blue"], top=50, labels=labels, encoder=encoder)
        paths, scores = by_hand(photos, encoder, encoder.encode_texts(["blue"])[0], labels)
        assert {hit.path for hit in hits} == set(paths)
        np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-5)
    with pytest.raises(UnknownName, match=r"cofee.*Did you mean 'coffee'"):
        query(index, ["blue"], labels=["cofee"], encoder=encoder)


def test_identical_files_are_both_listed(photos, index, encoder):
    (hits,) = query(index, [photos / "twins" / "coffee.png"], top=2, encoder=encoder)
    assert {Path(hit.path).parent.name for hit in hits} == {"coffee", "twins"}
    (hits,) = query(index, [photos / "twins" / "coffee.png"], top=2, labels=["twins"], encoder=encoder)
    assert [hit.label for hit in hits] == ["twins"]


def test_wrong_queries(index, encoder, tmp_path, monkeypatch):
    (tmp_path / "broken.jpg").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"broken\.jpg: not a picture"):
        query(index, [str(tmp_path / "broken.jpg")], encoder=encoder)
    with pytest.raises(DataError, match="no such image file"):
        query(index, ["nowhere.JPG"], encoder=encoder)
    other = load_encoder("toy", "cpu")
    other.fingerprint = "toy-2"
    with pytest.raises(FingerprintMismatch, match="toy-1"):
        Searcher(index, encoder=other)
    monkeypatch.setattr(type(encoder), "modalities", frozenset({"image"}))
    with pytest.raises(MissingInput, match="takes no text"):
        query(index, ["red"], encoder=encoder)


def test_a_sheet_holds_its_pictures_and_escapes_everything(photos, tmp_path):
    evil = tmp_path / "<script>alert(1) & co.png"
    shutil.copy(photos / "coffee" / "0 ü.png", evil)
    sections = [
        Section("red <b>", [(str(evil), "0.5 <i>"), (str(photos / "rocket" / "0 ü.png"), "0.4")]),
        Section("nothing", []),
        Section("again", [(str(tmp_path / "gone.png"), "0.1"), (str(evil), "0.0")]),
    ]
    target = write_sheet(tmp_path / "sheet.html", "title </title><script>", sections)
    page = target.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 3
    assert "<script>" not in page
    assert "<i>" not in page
    assert "red &lt;b&gt;" in page
    assert "0 ü.png" in page
    assert "nothing found" in page
    assert "cannot be read" in page
    assert "http://" not in page
    assert "https://" not in page
    write_sheet(target, "newer", sections)  # a sheet may take the place of a sheet
    assert "newer" in target.read_text(encoding="utf-8")


def test_an_earlier_sheet_outlives_a_full_disk(tmp_path):
    target = write_sheet(tmp_path / "sheet.html", "earlier", [])
    earlier = target.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(earlier), limit[1]))  # no file may grow beyond it
    try:
        with pytest.raises(OutputError, match=r"cannot write .*sheet\.html"):
            write_sheet(target, "newer" * len(earlier), [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == [(target, earlier)]


def test_a_sheet_destroys_nothing_else(tmp_path):
    (tmp_path / "thesis.html").write_text("<html>years of work</html>")
    for target, error in (
        (tmp_path / "thesis.html", OutputExists),
        (tmp_path, OutputExists),
        (tmp_path / "nowhere" / "sheet.html", OutputError),
        (tmp_path / "thesis.html" / "sheet.html", OutputError),
    ):
        with pytest.raises(error):
            write_sheet(target, "title", [])
    assert (tmp_path / "thesis.html").read_text() == "<html>years of work</html>"


def test_thumbnails_are_small_and_upright():
    tall = np.zeros((600, 300, 3), np.uint8)
    tall[:100] = (250, 0, 0)
    uri = thumbnail(tall)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert image.size == (96, 192)
    assert image.getpixel((48, 10))[0] > 200
    assert image.getpixel((48, 100))[0] < 50


def test_empty_queries_and_queries_that_are_no_text_are_refused(index, encoder):
    for text, why in (("", "empty query"), ("  ", "empty query"), ("caf\udce9", "not Unicode text")):
        with pytest.raises(DataError, match=why):
            query(index, [text], encoder=encoder)


@pytest.mark.parametrize("least", [None, 0.5])
def test_asking_for_less_than_one_is_refused(index, encoder, least):
    for top in (0, -1):
        with pytest.raises(InvalidOption, match=f"top must be 1 or more, got {top}"):
            query(index, ["red"], top=top, least=least, encoder=encoder)


def test_asking_for_far_more_than_there_is_costs_nothing(index, encoder):
    with Searcher(index, encoder=encoder) as searcher:
        everything = len(searcher.store.entries())
        assert len(searcher.search(torch.ones(1, encoder.dim), top=10**12)[0]) == everything
