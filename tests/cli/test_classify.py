"""fewshot classify and fit, as a user types them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from colours import colour_folders, colour_picture
from fewshot.cli import cli


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos ä"
    folder.mkdir()
    for colour in ("red", "blue"):
        colour_picture(colour, 9).save(folder / f"{colour}.png")
    (folder / "broken.jpg").write_bytes(b"")
    return folder


def test_json_is_one_object_a_line(photos: Path) -> None:
    done = run("classify", photos, "--classes", "red,green,blue", "--encoder", "toy", "--json", "--top", "2")
    assert done.exit_code == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(Path(row["path"]).stem, row["label"]) for row in rows] == [("blue", "blue"), ("red", "red")]
    assert list(rows[0]) == ["path", "label", "probability", "top"]
    assert [set(entry) for entry in rows[0]["top"]] == [{"label", "probability"}] * 2
    assert "broken.jpg: empty file" in done.stderr
    assert "pictures skipped: 1" in done.stderr
    assert "on cpu" in done.stderr
    assert "images/s" in done.stderr


def test_fit_then_classify_without_the_examples(photos: Path, tmp_path: Path) -> None:
    support = colour_folders(tmp_path / "support")
    made = run("fit", "--support", support, "--encoder", "toy", "-s", "ridge", "--out", tmp_path / "m", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["strategy"] == "ridge"
    for picture in support.glob("*/*.png"):
        picture.unlink()
    done = run("classify", photos, "--model", tmp_path / "m")
    assert done.exit_code == 0
    assert "blue.png: blue" in done.stdout
    again = run("fit", "--classes", "a,b", "--encoder", "toy", "--out", tmp_path / "m")
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert run("fit", "--classes", "a,b", "--encoder", "toy", "--out", tmp_path / "m", "--force").exit_code == 0


def test_probabilities_can_be_calibrated(photos: Path, tmp_path: Path) -> None:
    task = ["--support", colour_folders(tmp_path / "support"), "--encoder", "toy", "-s", "prototypical"]
    task += ["-o", "temperature=0.01"]
    found = []
    for words in (["classify", photos, *task], ["classify", photos, *task, "--calibrate"]):
        done = run(*words, "--json")
        assert done.exit_code == 0, done.output
        found.append([json.loads(line) for line in done.stdout.splitlines()])
    assert [row["label"] for row in found[0]] == [row["label"] for row in found[1]]
    assert all(row["probability"] < 0.4 for row in found[0])  # three classes, and hardly any temperature
    assert all(row["probability"] > 0.7 for row in found[1])
    assert run("fit", *task, "--calibrate", "--out", tmp_path / "m").exit_code == 0
    done = run("classify", photos, "--model", tmp_path / "m", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == found[1]


def test_templates_and_files(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("red\nblue\n")
    task = ["--classes-file", tmp_path / "c.txt", "--template", "a {} thing", "--template", "{}", "--encoder", "toy"]
    done = run("classify", photos / "red.png", *task)
    assert done.exit_code == 0
    assert "red.png: red" in done.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "nothing to go by: pass --classes"),
        (["--classes", "red,blue", "-s", "zeroshot"], "unknown strategy 'zeroshot'. Did you mean 'zero_shot'"),
        (["--classes", "red,blue", "--encoder", "tyo"], "unknown encoder 'tyo'. Did you mean 'toy'"),
        (["--classes", "red,blue", "-s", "zero_shot", "-o", "scael=1"], "unknown option of zero_shot 'scael'"),
        (["--classes", "red,blue", "-s", "zero_shot", "-o", "scale"], "not of the form key=value"),
        (["--classes", "red"], "names 1 class; give at least two"),
        (["--classes", "red,blue", "-s", "prototypical"], "needs labelled examples: pass --support"),
        (["--classes", "red,blue", "--classes-file", "x"], "exclude each other"),
        (["--template", "a {}", "--support", "x"], "--template needs class names"),
        (["--classes", "red,blue", "--template", "no place"], "has no {} where the class name goes"),
        (["--classes", "red,blue", "--device", "gpu"], "unknown device 'gpu'"),
        (["--classes", "red,blue", "--device", "cuda:99"], "is not there"),
        (["--support", "nowhere"], "neither a folder"),
        (["--attributes", "nowhere.csv"], "cannot be read"),
        (["--model", "nowhere"], "nowhere is not there"),
        (["--model", "nowhere", "--classes", "a,b"], "leave out --classes"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: list[str], text: str, photos: Path) -> None:
    encoder = [] if "--encoder" in words or "--model" in words else ["--encoder", "toy"]
    done = run("classify", photos / "red.png", *words, *encoder)
    assert done.exit_code == 2, done.output
    assert text in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert done.stdout == ""


def test_missing_paths(tmp_path: Path) -> None:
    done = run("classify", tmp_path / "none.png", "--classes", "a,b", "--encoder", "toy")
    assert done.exit_code == 2
    assert "none.png is not there" in done.stderr
    done = run("classify", tmp_path, "--classes", "a,b", "--encoder", "toy")
    assert done.exit_code == 2
    assert "no pictures found" in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["classify", "", "--classes", "a,b"], "'' is not there"),
        (["classify", "PHOTOS", "--support", ""], "'--support': is empty"),
        (["classify", "PHOTOS", "--model", ""], "'--model': is empty"),
        (["classify", "PHOTOS", "--classes", "a,b", "--unlabeled", "none"], "--unlabeled none is not there"),
        (["classify", "PHOTOS", "--support", "PHOTOS", "--source", "none"], "--source none is not there"),
        (["fit", "--classes", "a,b", "--out", ""], "'--out': is empty"),
        (["fit", "--classes", "a,b", "--out", "none/m"], "no folder none"),
        (["fit", "--classes", "a,b", "--force", "--out", "PHOTOS"], "is a folder"),
        (["classify", "PHOTOS", "--classes", "a,b", "--encoder", "toy:x"], "has no variants"),
    ],
)
def test_paths_that_are_empty_or_lead_nowhere(
    words: list[str], text: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    done = run(*[photos if word == "PHOTOS" else word for word in words])
    assert (done.exit_code, done.stdout) == (2, "")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    done = run("classify", tmp_path / "text.jpg", "--classes", "red,blue", "--encoder", "toy")
    assert done.exit_code == 2
    assert "text.jpg: not a picture" in done.stderr
    assert "none of the pictures could be read" in done.stderr


def test_missing_needs_are_told_before_anything_is_embedded(tmp_path: Path) -> None:
    support = colour_folders(tmp_path / "support")
    for strategy, flag in (("eszsl", "--attributes"), ("tim", "--unlabeled"), ("zero_shot", "--classes")):
        done = run("classify", support, "--support", support, "--encoder", "toy", "-s", strategy)
        assert done.exit_code == 2
        assert flag in done.stderr
        assert "images/s" not in done.stderr
