"""fewshot index export, import, compact, repair and tune, as a user meets them."""

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
