"""fewshot bench report: from pictures to a page, wherever the pictures are now, and one line for each mistake."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fewshot.cli import cli
from fewshot.report import load_report


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda *words: CliRunner().invoke(cli, ["bench", *map(str, words)])


@pytest.fixture
def pictures(tmp_path):
    """Reddish, greenish and greyish pictures, 8 each; the last two kinds are easily confused."""
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("green", (110, 130, 110)), ("grey", (120, 120, 120))):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for i in range(8):
            pixels = np.clip(np.array(colour) + rng.normal(0, 12, 3) + rng.normal(0, 20, (16, 16, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pics" / name / f"{i}.png")
    (tmp_path / "pics" / "red" / "0bad.png").write_text("no picture")
    return tmp_path / "pics"


def run_bench(bench, data):
    words = ["run", "--dataset", data, "--encoder", "toy", "--shot", "2", "--way", "all", "--query", "4"]
    done = bench(*words, "--episodes", "10", "-s", "knn", "-s", "prototypical", "--json", "r.json")
    assert done.exit_code == 0, done.output


def test_pictures_stand_in_the_page_even_when_they_have_moved(bench, pictures, tmp_path):
    run_bench(bench, "pics")
    assert load_report("r.json").results[0].source == "folder=pics"
    done = bench("report", "r.json", "--html", "a.html", "-s", "prototypical")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Closer look: prototypical" in page
    assert 'src="data:image/jpeg;base64,' in page
    shown = re.findall(r'<figure title="(\w+)/\d\.png">.*?<b>(\w+)</b>', page, re.DOTALL)
    assert len(shown) > 12
    assert all(folder == label for folder, label in shown)  # each picture has its own label

    pictures.rename(tmp_path / "elsewhere")
    done = bench("report", "r.json", "--html", "b.html")
    assert done.exit_code == 0, done.output
    assert "without pictures and map: pics is not a folder" in done.stderr
    assert "pics is not a folder" in (tmp_path / "b.html").read_text(encoding="utf-8")

    (tmp_path / "new").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "new" / "pics")
    done = bench("report", "r.json", "--html", "c.html", "--dataset", "new/pics", "-s", "prototypical")
    assert (tmp_path / "c.html").read_text(encoding="utf-8") == page

    (tmp_path / "new" / "pics" / "red" / "1.png").unlink()
    done = bench("report", "r.json", "--html", "d.html", "--dataset", "new/pics")
    assert "holds other labels or splits than when the result was made" in done.stderr


def test_suites_say_where_their_data_is(bench, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    run = '[[run]]\ndataset = "folder"\nencoders = ["toy"]\nstrategies = ["knn"]\nepisodes = 5\nway = 2\nquery = 2\n'
    (tmp_path / "s.toml").write_text(f'{run}path = "$MY_DATA/pics"\n{run}path = "pics"\n')
    assert bench("run", tmp_path / "s.toml", "--json", "r.json").exit_code == 0
    sources = [r.source for r in load_report("r.json").results]
    assert sources == ["folder=$MY_DATA/pics", f"folder={tmp_path}/pics"]
    done = bench("report", "r.json", "--html", "a.html", "-s", "knn")
    assert "looking at pics with knn" in done.stderr
    assert "without" not in done.stderr


def test_embedded_data_goes_without_pictures(bench, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "f.npz", x=rng.normal(size=(60, 4)), labels=np.repeat(["a", "b", "c"], 20))
    words = ["--dataset", "f.npz", "--way", "3", "--episodes", "5", "--query", "2", "--shot", "1", "--json", "r.json"]
    assert bench("run", *words).exit_code == 0
    done = bench("report", "r.json", "--html", "a.html", "--numbers-only")
    assert "could not be looked at: --numbers-only was given" in (tmp_path / "a.html").read_text()
    again = bench("report", "r.json", "--html", "a.html", "--numbers-only")
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    assert "is there already; choose another name or pass --force" in again.stderr
    done = bench("report", "r.json", "--html", "a.html", "--force")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "a.html").read_text()
    assert "embeddings only" in page
    assert "Embeddings of the task (60 items)" in page
    assert "<img" not in page


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["none.json", "--html", "a.html"], "none.json is not a report that can be read"),
        (["r.json", "--html", "no/a.html"], "no folder no"),
        (["r.json", "--html", "a.html", "-s", "knnn"], "unknown strategy of these results 'knnn'. Did you mean 'knn'"),
        (["r.json", "--html", "a.html", "--dataset", "gone/x"], "neither a data set's name nor a folder"),
        (["empty.json", "--html", "a.html"], "empty.json: no results to show"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(bench, tmp_path, words, text):
    bench("run", "--dataset", "spheres", "--episodes", "2", "-s", "knn", "--json", "r.json")
    (tmp_path / "empty.json").write_text('{"format": "fewshot report", "version": 1, "results": []}')
    done = bench("report", *words)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "a.html").exists()
