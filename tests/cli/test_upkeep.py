"""fewshot index export, import, compact, repair and tune, as a user meets them."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

from fewshot.cli import cli


def run(*words, code=0):
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


@pytest.fixture
def index(tmp_path):
    for name in ("red", "green", "blue"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9), name).save(tmp_path / "photos" / name / "1.png")
    run("index", "build", tmp_path / "photos", "--out", tmp_path / "index", "--encoder", "toy", "--device", "cpu")
    return tmp_path / "index"


def test_what_was_exported_is_searched_without_naming_the_encoder(index, tmp_path):
    run("index", "export", index, tmp_path / "some.npz")
    run("index", "import", tmp_path / "some.npz", "--out", tmp_path / "again")
    assert run("query", tmp_path / "again", "red").stdout == run("query", index, "red").stdout


def test_json_has_the_figures_of_the_plain_lines(index, tmp_path):
    def told(*words):
        return json.loads(run("index", *words, "--json").stdout)

    file, other = tmp_path / "some.npz", tmp_path / "other"
    assert told("export", index, file) == {"index": str(index), "file": str(file), "pictures": 3}
    assert told("import", file, "--out", other) == {"index": str(other), "file": str(file), "pictures": 3}
    tuned = told("tune", index, "--kind", "sq")
    assert tuned["search"].startswith("sq (SQ8), recall@10 ")
    facts = told("info", index)
    assert tuned == {"index": str(index), **{key: facts[key] for key in ("search", "memory", "recall@10")}}
    assert told("remove", index, "--label", "red") == {"index": str(index), "removed": 1}
    assert told("compact", index)["freed"] > 0
    assert run("index", "compact", index).stdout == f"0 bytes freed in {index}\n"
    assert told("compact", index) == {"index": str(index), "freed": 0}
    assert told("repair", index) == {"index": str(index), "done": []}
    array = next(index.glob("embeddings*"))
    array.write_bytes(array.read_bytes()[:-1])
    assert told("repair", index)["done"][0].startswith("rows 0 to 1 were damaged and forgotten")


def test_a_watch_says_how_it_was_stopped(index, tmp_path, monkeypatch):
    """At rest the index is as it should be, amid an update it is not, and before the first one it is not there."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "other"
    for target, code, told in (
        ("fewshot.watch.build_index", 130, "nothing was embedded yet"),
        ("time.sleep", 0, f"stopped; {out} is as of the last look"),
        ("fewshot.watch.update", 130, f"what was embedded is kept in {out}"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, interrupt)
            result = CliRunner().invoke(
                cli, ["index", "watch", str(tmp_path / "photos"), "--out", str(out), "--encoder", "toy"]
            )
        assert (result.exit_code, told in result.stderr) == (code, True)
