"""A broken encoder is named in one line, and nothing of what it gives is kept or searched with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from fewshot.cli import cli
from fewshot.encoders import load_encoder
from fewshot.encoders.toy import ToyEncoder
from fewshot.encoding import encode_texts
from fewshot.errors import PluginError
from fewshot.store import Store

BROKEN: dict[str, tuple[Callable[[int], Tensor], str]] = {
    "nan": (lambda n: torch.full((n, 64), torch.nan), "gives NaN or infinity for {n} of {n} pictures or texts"),
    "one infinity": (
        lambda n: torch.ones(n, 64).index_put((torch.tensor(0), torch.tensor(3)), torch.tensor(torch.inf)),
        "gives NaN or infinity for 1 of {n} pictures or texts",
    ),
    "another width": (lambda n: torch.ones(n, 65), "gives embeddings of shape [{n}, 65], not [{n}, 64]"),
    "a row too many": (lambda n: torch.ones(n + 1, 64), "gives embeddings of shape [{m}, 64], not [{n}, 64]"),
    "an error": (lambda n: torch.ones(n, 64) @ torch.ones(3, 3), "failed: RuntimeError: mat1 and mat2"),
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (20, 30), (80 * i, 10, 200)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("how", BROKEN)
def test_it_is_named_in_one_line(how: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, message = BROKEN[how]

    def run(*words: str) -> str:
        done = CliRunner().invoke(cli, list(words))
        assert done.exit_code == 2, done.output
        assert isinstance(done.exception, SystemExit)
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        return line

    monkeypatch.delenv("FEWSHOT_STRICT_PLUGINS", raising=False)
    built = tmp_path / "built"
    made = CliRunner().invoke(cli, ["index", "build", str(photos), "--out", str(built), "--encoder", "toy"])
    assert made.exit_code == 0, made.output
    monkeypatch.setattr(ToyEncoder, "encode_texts", lambda self, texts: answer(len(texts)))
    for n, words in ((1, ["query", str(built), "red"]), (2, ["classify", str(built), "--classes", "red, blue"])):
        assert f"encoder 'toy' {message.format(n=n, m=n + 1)}" in run(*words)
    monkeypatch.setattr(ToyEncoder, "encode_prepared", lambda self, batch: answer(len(batch)))
    one, three = (f"encoder 'toy' {message.format(n=n, m=n + 1)}" for n in (1, 3))
    assert one in run("query", str(built), str(photos / "0.png"))
    assert three in run("index", "build", str(photos), "--out", str(tmp_path / "new"), "--encoder", "toy")
    with Store.open(tmp_path / "new") as store:
        assert store.rows == 0


def test_sound_answers_pass() -> None:
    encoder = load_encoder("toy", "cpu")
    assert torch.equal(encode_texts(encoder, ["red", "blue"]), encoder.encode_texts(["red", "blue"]))
    assert encode_texts(encoder, []).shape == (0, 64)


def test_an_error_keeps_its_traceback_for_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder("toy", "cpu")
    monkeypatch.setattr(encoder, "encode_texts", json.loads)
    monkeypatch.setenv("FEWSHOT_STRICT_PLUGINS", "1")
    with pytest.raises(TypeError):
        encode_texts(encoder, ["red"])
    monkeypatch.setenv("FEWSHOT_STRICT_PLUGINS", "")
    with pytest.raises(PluginError, match="encoder 'toy' failed: TypeError"):
        encode_texts(encoder, ["red"])
