"""fewshot index tune, find, duplicates, and conditions of query, as a user meets them."""

import json
import shutil

import pytest
from click.testing import CliRunner
from PIL import Image
from skimage import data

from fewshot.cli import cli
from fewshot.index_plan import Wanted, size, wanted_of
from fewshot.store import Store


def run(*words, code=0):
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def error(*words):
    """Run what must fail with one line on stderr; return it."""
    result = run(*words, code=2)
    assert result.stderr.startswith("error: ")
    return result.stderr.splitlines()[-1]


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for name in ("red", "blue"):
        (root / name).mkdir(parents=True)
        for i in range(4):
            image = Image.fromarray(data.astronaut()[i * 60 : i * 60 + 80, i * 50 : i * 50 + 90])
            image.paste(name, (0, 0, 40 + 5 * i, 80))
            image.save(root / name / f"{i}.png")
    shutil.copy(root / "red" / "0.png", root / "blue" / "copy.png")
    return root


@pytest.fixture
def index(photos, tmp_path):
    out = tmp_path / "index"
    run("index", "build", photos, "--out", out, "--encoder", "toy", "--device", "cpu")
    return out


def test_tune_and_info(photos, index, tmp_path):
    facts = json.loads(run("index", "info", index, "--json").stdout)
    assert (facts["search"], facts["memory"]) == ("exact", 0)
    assert "memory:        0 bytes\n" in run("index", "info", index).stdout
    tuned = run("index", "tune", index, "--kind", "sq", "--recall", 0.9)
    assert tuned.stderr.startswith("building sq (SQ8): ")
    assert "of memory" in tuned.stderr
    assert tuned.stdout.startswith(f"{index}: sq (SQ8), recall@10 ")
    assert "search:        sq (SQ8), recall@10 " in run("index", "info", index).stdout
    told = run("index", "info", index, "--json").stdout
    assert f": {size(json.loads(told)['memory'])} of memory" in tuned.stderr
    again = tmp_path / "other"
    run("index", "build", photos, "--out", again, "--encoder", "toy", "--kind", "SQfp16", "--memory", "1GB")
    assert "SQfp16, recall@10" in run("index", "info", again).stdout
    assert run("query", again, "red", "--top", 2).stdout == run("query", index, "red", "--top", 2).stdout


def test_memory_is_not_told_of_an_index_that_is_not_saved(index):
    for file in index.glob("*.faiss"):
        file.unlink()
    assert json.loads(run("index", "info", index, "--json").stdout)["memory"] is None
    assert "memory:        -\n" in run("index", "info", index).stdout


def test_what_is_not_said_stays_as_the_index_has_it(photos, index):
    run("index", "tune", index, "--kind", "sq", "--memory", "1GB")
    assert "sq (SQ8)" in run("index", "tune", index, "--recall", 0.9).stdout
    assert "sq (SQ8)" in run("index", "tune", index).stdout
    run("index", "build", photos, "--out", index, "--recall", 0.95)
    with Store.open(index) as store:
        assert wanted_of(store) == Wanted("sq", 0.95, 10**9)


def test_wrong_wishes(photos, index, tmp_path):
    assert "FAISS rejects the factory string 'PQ7x'" in error("index", "tune", index, "--kind", "PQ7x")
    assert "recall must lie between 0 and 1" in error("index", "tune", index, "--recall", 3)
    for text in ("lots", "-5", "0", "0.5", "1e999", "-1GB", "."):
        assert "of 1 byte or more" in error("index", "tune", index, f"--memory={text}")
    assert "needs hnsw (HNSW32,SQ8)" in error("index", "tune", index, "--kind", "hnsw", "--memory", "1kB")
    assert "search:        exact" in run("index", "info", index).stdout


def test_the_name_of_a_kind_and_a_size_in_any_writing(index):
    run("index", "tune", index, "--kind", "SQ", "--memory", "1e9")
    with Store.open(index) as store:
        assert wanted_of(store) == Wanted("sq", memory=10**9)


def test_what_cannot_be_built_leaves_an_index_as_it_was(photos, index, tmp_path):
    before = run("query", index, "red").stdout
    failed = run("index", "tune", index, "--kind", "IVF64,Flat", code=2).stderr.splitlines()
    assert failed[1].startswith("error: FAISS cannot train this kind of index on 8 rows")
    assert run("query", index, "red").stdout == before
    run("index", "build", photos, "--out", index)
    assert "search:        exact" in run("index", "info", index).stdout
    new = tmp_path / "new"
    assert "rejects the factory" in error("index", "build", photos, "--out", new, "--encoder", "toy", "--kind", "IVFx")
    assert not new.exists()


def test_query_by_path_and_score(photos, index):
    hits = json.loads(run("query", index, "red", "--where", "path=*/copy.png", "--json").stdout)["hits"]
    assert [hit["path"] for hit in hits] == [str(photos / "blue" / "copy.png")]
    both = run("query", index, "red", "--where", "path=*.png", "--where", "label=red", "--json").stdout
    scores = [hit["score"] for hit in json.loads(both)["hits"]]
    assert len(scores) == 4
    some = run("query", index, "red", "--where", "label=red", "--min-score", scores[1] - 1e-6, "--json").stdout
    assert len(json.loads(some)["hits"]) == 2
    assert "unknown key of --where 'size'" in error("query", index, "red", "--where", "size=3")
    assert "names nothing" in error("query", index, "red", "--where", "path=")


def test_query_within_a_folder(photos, index, monkeypatch):
    whole = json.loads(run("query", index, "red", "--where", f"path={photos}/blue/*", "--json").stdout)["hits"]
    assert len(whole) == 5
    monkeypatch.chdir(photos)
    for folder in ("blue", "blue/", "./blue", photos / "blue", "b*"):
        hits = json.loads(run("query", index, "red", "--where", f"path={folder}", "--json").stdout)["hits"]
        assert hits == whole
    (hit,) = json.loads(run("query", index, "red", "--where", "path=blue/1.png", "--json").stdout)["hits"]
    assert hit["path"] == str(photos / "blue" / "1.png")


def test_a_path_that_no_picture_has_is_told(photos, index):
    none = run("query", index, "red", "--where", f"path={photos}/green/*")
    assert none.stdout == "red\n  nothing found\n"
    assert none.stderr.splitlines()[0] == f"no picture's path matches '{photos}/green/*'"
    both = run("query", index, "red", "--where", "path=*/blue/*", "--where", "label=red")
    assert both.stdout == none.stdout
    assert "matches" not in both.stderr


def test_duplicates(photos, index):
    refused = run("duplicates", index, "--threshold", "nan", "--json", code=2)
    assert not refused.stdout
    assert "must be a number" in refused.stderr
    lines = run("duplicates", index, "--threshold", 0.9999)
    assert lines.stdout == f"1.0000  {photos}/blue/copy.png  {photos}/red/0.png\n"
    assert "1 pairs" in lines.stderr
    everything = run("duplicates", index, "--threshold", -1, "--json").stdout.splitlines()
    assert len(everything) == 9 * 8 / 2
    assert set(json.loads(everything[0])) == {"first", "second", "cosine"}
    for device in ("cuda:abc", "tpu"):
        assert f"unknown device '{device}'" in error("duplicates", index, "--device", device)


def test_find(photos, index, tmp_path):
    model = tmp_path / "colours.fewshot"
    run("fit", "--support", photos, "--encoder", "toy", "-s", "ridge", "--out", model)
    lines = run("find", index, "--model", model, "--class", "red", "--top", 3, "--json").stdout.splitlines()
    (found,) = map(json.loads, lines)
    assert found["class"] == "red"
    assert len(found["pictures"]) == 3
    scores = [picture["score"] for picture in found["pictures"]]
    assert scores == sorted(scores, reverse=True)
    plain = run("find", index, "--model", model, "--min-probability", 1).stdout
    assert plain == "blue\n  nothing found\nred\n  nothing found\n"
    assert "unknown class 'rde'" in error("find", index, "--model", model, "--class", "rde")
    assert f"{photos} is a folder and no model; make one with `fewshot fit`" in error("find", index, "--model", photos)
    assert f"{index} is an index and no model" in error("find", index, "--model", index)
    assert "must be a number, got nan" in error("find", index, "--model", model, "--min-probability", "nan")


def test_no_number_is_refused_wherever_a_fraction_is_asked_for(photos, index):
    assert "must be a number, got nan" in error("query", index, "red", "--min-score", "nan")
    assert "must lie between 0 and 1, got nan" in error("index", "tune", index, "--recall", "nan")
    assert "interval must be above 0" in error("index", "watch", photos, "--out", index, "--interval", "nan")
