"""Texts in a CSV go the way of pictures: examples, queries, a source, the bench, and a wrong table is one line."""

import csv
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fewshot import Classifier, load_encoder
from fewshot.cli import cli
from fewshot.datasets import Text
from fewshot.datasets.table import read_table
from fewshot.embed_items import embed_items
from fewshot.errors import DataError
from fewshot.inputs import embed_inputs


def table(file: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([header, *rows])
    return file


KNOWN = [("a red car", "warm"), ("a yellow sun", "warm"), ("the blue, cold sea", "cold"), ("cyan and blue ice", "cold")]


def test_texts_are_embedded_by_the_text_side_of_the_encoder(tmp_path: Path) -> None:
    encoder = load_encoder("toy")
    items = read_table(table(tmp_path / "t.csv", KNOWN))
    wanted = encoder.encode_texts([text for text, _ in KNOWN])
    torch.testing.assert_close(embed_inputs(encoder, items.sources).embeddings, wanted)
    torch.testing.assert_close(embed_inputs(encoder, tmp_path / "t.csv").embeddings, wanted)
    torch.testing.assert_close(embed_items("t", items, encoder)[0].x, wanted)
    assert embed_inputs(encoder, [Text("a red car")]).names == ("a red car",)


def test_a_text_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when it is longer than any file name may be, nor when a folder or a table is called so."""
    (tmp_path / "red").mkdir()
    (tmp_path / "blue.csv").write_text("text\nsomething else\n")
    monkeypatch.chdir(tmp_path)
    encoder, texts = load_encoder("toy"), ["a red car " * 40, "red", "blue.csv", ""]
    found = embed_inputs(encoder, [Text(text) for text in texts])
    assert found.names == tuple(texts)
    torch.testing.assert_close(found.embeddings, encoder.encode_texts(texts))


def test_texts_are_embedded_once_with_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, items = load_encoder("toy"), read_table(table(tmp_path / "t.csv", KNOWN))
    asked: list[str] = []
    encode = encoder.encode_texts
    monkeypatch.setattr(encoder, "encode_texts", lambda texts: asked.extend(texts) or encode(texts))
    first = embed_items("t", items, encoder, cache=tmp_path / "cache")[0].x
    assert asked == [*items.sources, "cold", "warm"]
    asked.clear()
    torch.testing.assert_close(embed_items("t", items, encoder, cache=tmp_path / "cache")[0].x, first, atol=0, rtol=0)
    assert asked == ["cold", "warm"]


def test_a_table_of_texts_is_classified_from_a_table_of_examples_and_a_source(tmp_path: Path) -> None:
    known = table(tmp_path / "known.csv", KNOWN)
    far = table(tmp_path / "far.csv", [("red wine", "warm"), ("orange and red", "warm"), ("blue sky", "cold"),
                                       ("cyan paint, blue", "cold")])  # fmt: skip
    asked = table(tmp_path / "asked.csv", [("a red house",), ("something blue",)], ("text",))
    words = ["classify", str(asked), "--support", str(known), "--source", str(far), "--encoder", "toy"]
    done = CliRunner().invoke(cli, [*words, "-s", "biased_ridge", "--json"])
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(f["path"], f["label"]) for f in found] == [("a red house", "warm"), ("something blue", "cold")]
    assert [p.label for p in Classifier(encoder="toy").fit(known).predict([Text("red"), Text("blue")])] == [
        "warm",
        "cold",
    ]


def test_line_breaks_within_a_text_stay(tmp_path: Path) -> None:
    texts = ("two\nlines", "a\u2028separator", "next\x85line", "plain")
    table(tmp_path / "t.csv", [(text, "ab"[i % 2]) for i, text in enumerate(texts)])
    lines = [json.dumps({"text": text, "label": "ab"[i % 2]}, ensure_ascii=False) for i, text in enumerate(texts)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert read_table(tmp_path / "t.csv").sources == read_table(tmp_path / "t.jsonl").sources == texts
    (tmp_path / "long.csv").write_text("text,label\n" + "x" * 200_000 + ",a\n")
    with pytest.raises(DataError, match=r"long.csv, row 2: not CSV \(field larger"):
        read_table(tmp_path / "long.csv")


def test_a_wrong_table_is_one_line(tmp_path: Path) -> None:
    bad = table(tmp_path / "bad.csv", [("x", "y")], ("words", "label"))
    done = CliRunner().invoke(cli, ["classify", str(bad), "--support", str(bad), "--encoder", "toy"])
    assert done.exit_code == 2
    assert "must name the columns path and label, or text and label; ['path'] missing" in done.stderr
    empty = table(tmp_path / "empty.csv", [("", "y"), ("a", "z")])
    done = CliRunner().invoke(cli, ["classify", str(empty), "--support", str(empty), "--encoder", "toy"])
    assert done.exit_code == 2
    assert "row 2: wants a path or a text, and a label" in done.stderr
