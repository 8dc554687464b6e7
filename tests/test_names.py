"""Whatever a folder, a file or a label is called, it can be indexed, named and asked for again."""

import os

import pytest
from click.testing import CliRunner
from PIL import Image

from fewshot.cli import cli
from fewshot.errors import ImageError
from fewshot.images import read_file
from fewshot.names import stored_glob
from fewshot.store import Store

ODD = b"caf\xe9"  # Latin-1: no Unicode


def run(*words, code=0):
    result = CliRunner().invoke(cli, [os.fsdecode(word) for word in words])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def picture(folder, name, colour="red"):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        Image.new("RGB", (9, 9), colour).save(file, "png")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder with one picture of a plain name, and one of a name that is no Unicode."""
    monkeypatch.chdir(tmp_path)
    picture("photos", "good.png")
    try:
        picture(b"photos/" + ODD, b"1.png")
    except OSError:
        pytest.skip("the file system takes Unicode names only")
    run("index", "build", "photos", "--out", "index", "--encoder", "toy", "--device", "cpu")
    return tmp_path / "index"


def skipped(index):
    with Store.open(index) as store:
        return [path for path, _ in store.skipped()]


def test_a_folder_whose_name_is_no_unicode(index, tmp_path):
    listed = [f"{tmp_path}/photos/caf\\xe9/1.png"]
    assert skipped(index) == listed
    again = run("index", "build", b"photos/" + ODD, "--out", "index")
    assert again.stdout.startswith("index: 0 embedded, 0 unchanged, 1 skipped")
    run("index", "add", "index", b"photos/" + ODD + b"/1.png")
    assert skipped(index) == listed
    assert "nothing found" in run("query", "index", "red", "--where", b"path=photos/" + ODD + b"/*").stdout
    assert run("index", "remove", "index", b"photos/" + ODD).stdout.startswith("1 removed")
    assert skipped(index) == []
    run("index", "build", b"photos/" + ODD, "--out", "new", "--encoder", "toy", "--device", "cpu")
    assert skipped("new") == listed


def test_the_reason_is_the_name_while_the_file_is_there(index, tmp_path):
    with Store.open(index) as store:
        assert [reason for _, reason in store.skipped()] == ["its name or a folder's is not Unicode; rename it"]
    escaped = tmp_path / "photos" / "caf\\xe9"
    os.remove(os.fsencode(tmp_path) + b"/photos/" + ODD + b"/1.png")
    with pytest.raises(ImageError, match="no such file"):
        read_file(escaped / "1.png")
    picture(escaped, "2.png")  # a name with a real backslash
    run("index", "build", "photos", "--out", "index")
    assert skipped(index) == []
    os.remove(escaped / "2.png")
    with pytest.raises(ImageError, match="no such file"):
        read_file(escaped / "2.png")


def test_a_label_that_is_no_unicode(index):
    run("index", "add", "index", "photos/good.png", "--label", ODD)
    with Store.open(index) as store:
        assert store.labels() == {"caf\\xe9": 1}
    assert "good.png" in run("query", "index", "red", "--where", b"label=" + ODD).stdout
    assert run("index", "remove", "index", "--label", ODD).stdout.startswith("2 removed")  # and one that is skipped


def test_a_current_folder_that_looks_like_a_glob(tmp_path, monkeypatch):
    place = tmp_path / "[2020] * and ?"
    picture(place / "a", "1.png")
    picture(place / "b", "[1].png", "blue")
    monkeypatch.chdir(place)
    run("index", "build", ".", "--out", "../index", "--encoder", "toy", "--device", "cpu")
    assert "a/1.png" in run("query", "../index", "red", "--where", "path=a/*.png").stdout
    monkeypatch.chdir(place / "a")
    for pattern in ("../b/[[]*.png", "../b/[1].png", "../b", ".."):
        assert "b/[1].png" in run("query", "../../index", "red", "--where", f"path={pattern}").stdout
    assert run("index", "remove", "../../index", "?.png").stdout.startswith("1 removed")
    assert run("index", "remove", "../../index", "../b/*").stdout.startswith("1 removed")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", "*.png"),
        ("/a/../b*", "/b*"),
        ("c/*", "/at/[[]x]/c/*"),
        ("../*", "/at/*"),
        ("./[ab]", "/at/[[]x]/[ab]"),
    ],
)
def test_globs_are_of_whole_paths(monkeypatch, pattern, found):
    monkeypatch.setattr(os, "getcwd", lambda: "/at/[x]")
    assert stored_glob(pattern) == found
