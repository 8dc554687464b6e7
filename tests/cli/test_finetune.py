"""fewshot finetune from the command line: files it leaves, the encoder it makes, what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from fewshot.cli import cli


@pytest.fixture(scope="module")
def strokes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four grey pictures."""
    folder = tmp_path_factory.mktemp("strokes")
    for number, name in enumerate(("flat", "tall")):
        (folder / name).mkdir()
        for i in range(4):
            picture = Image.new("L", (24, 24), 255)
            box = (4 + i, 10, 20, 14) if number else (10, 4 + i, 14, 20)
            picture.paste(0, box)
            picture.save(folder / name / f"{i}.png")
    return folder


TINY = ["--episodic", "--way", "2", "--query", "1", "--steps", "4", "--size", "8", "--widths", "4,4", "--hold-out", "0"]


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["finetune", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_it_trains_and_says_where(strokes: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.w"
    code, text, notes = call("--data", strokes, "--out", out, *TINY)
    assert code == 0, notes
    assert text.startswith(f"saved {out} after")
    assert "2 classes in 1 groups, 8 pictures" in notes
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.w", "small.w.jsonl", "small.w.svg"]
    done = CliRunner().invoke(
        cli, ["classify", str(strokes), "--support", str(strokes), "--encoder", f"finetuned:{out}", "--json"]
    )
    assert done.exit_code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 8
    code, text, _ = call("--data", strokes, "--out", out, *TINY, "--force", "--json")
    assert json.loads(text)["recipe"]["steps"] == 4


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--way", "5"], "--way does not go without --episodic"),
        (["--episodic", "--lora", "5"], "--lora does not go with --episodic"),
        (["--episodic", "--widths", "a,b"], "--widths wants numbers"),
        (["--encoder", "st:x"], "st:x"),
        (["--split", "train"], "no split 'train'"),
        (["--freeze", "some"], "--freeze is all, none, norm or stages:N"),
    ],
)
def test_refusals_are_one_line(strokes: Path, tmp_path: Path, words: list[str], text: str) -> None:
    code, _, notes = call("--data", strokes, "--out", tmp_path / "w", *words)
    assert code == 2
    assert text in notes
    assert notes.startswith("error: ")
    assert notes.count("\n") == 1


def test_an_existing_file_and_a_missing_folder(strokes: Path, tmp_path: Path) -> None:
    (tmp_path / "w").write_text("")
    assert "exists already" in call("--data", strokes, "--out", tmp_path / "w")[2]
    assert "no folder" in call("--data", strokes, "--out", tmp_path / "none" / "w")[2]
