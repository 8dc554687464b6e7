"""Class lists, phrases and attribute tables from what users write."""

from pathlib import Path

import pytest

from fewshot.attributes import read_attributes
from fewshot.classes import ClassList, check_templates, class_list
from fewshot.errors import DataError


def test_names_from_words_sequences_and_mappings() -> None:
    assert class_list("dress, hat ,t-shirt").names == ("dress", "hat", "t-shirt")
    assert class_list(["a", "b"]).phrases == ((), ())
    assert class_list({"pants": ["trousers", "jeans"], "hat": "a hat"}).phrases == (("trousers", "jeans"), ("a hat",))


FILES = {
    "lines.txt": ("# comment\nred car\n\nblue car\n", ((), ())),
    "list.json": ('["red car", "blue car"]', ((), ())),
    "phrases.json": ('{"red car": ["a", "b"], "blue car": "c"}', (("a", "b"), ("c",))),
    "top.toml": ('"red car" = ["a", "b"]\n"blue car" = "c"\n', (("a", "b"), ("c",))),
    "table.toml": ('[classes]\n"red car" = ["a", "b"]\n"blue car" = "c"\n', (("a", "b"), ("c",))),
    "rows.csv": ("class,phrase\nred car,a\nblue car,c\nred car,b\n", (("a", "b"), ("c",))),
    "bom.csv": ("\ufeffred car\nblue car\n", ((), ())),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    content, phrases = FILES[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert class_list(tmp_path / name) == ClassList(("red car", "blue car"), phrases)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.json", '{"a": 1, "b": "x"}', "class 'a' wants a phrase"),
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "3", "must hold a list of names"),
        ("a.toml", "a = [", "is not valid TOML"),
        ("a.txt", "one\n", "names 1 class; give at least two"),
        ("a.txt", "a\nb\na\n", "names 'a' twice"),
        ("a.txt", "", "names 0 classes"),
    ],
)
def test_bad_files(name: str, content: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=text):
        class_list(tmp_path / name)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        class_list(tmp_path / "no.txt")


def test_names_go_into_templates_and_phrases_stand() -> None:
    classes = ClassList(("granny_smith", "pear"), ((), ("a green pear", "a pear")))
    assert classes.prompts(None, ["{}", "a photo of a {}."]) == [
        ["granny smith", "a photo of a granny smith."],
        ["a green pear", "a pear"],
    ]
    assert classes.prompts(["see {}"], ["{}"]) == [["see granny smith"], ["see a green pear", "see a pear"]]
    with pytest.raises(DataError, match=r"has no \{\}"):
        classes.prompts(["no place"], ["{}"])


def test_attribute_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("class,loops,strokes\nzero,1,0\none,0,1\neight,2,0.5\n")
    table = read_attributes(tmp_path / "a.csv")
    assert table.attributes == ("loops", "strokes")
    assert table.rows(["eight", "zero"]).tolist() == [[2, 0.5], [1, 0]]
    with pytest.raises(DataError, match="no row for class 'nine'"):
        table.rows(["nine"])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("class,a\nx,1\ny,high\n", "row 3, column 'a': 'high' is not a finite number"),
        ("class,a\nx,1\ny,nan\n", "not a finite number"),
        ("class,a\nx,1\nx,2\n", "row 3: class 'x' stands twice"),
        ("class,a\nx,1,2\n", "row 2: 3 cells, but the header has 2"),
        ("class,a\nx,1\ny,1e39\n", "row 3, column 'a'"),
        ("class,a\n,1\nx,2\n", "row 2: the first cell is empty"),
        ("class\nx\n", "wants a header"),
        ("", "wants a header"),
    ],
)
def test_bad_attribute_tables(content: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=text):
        read_attributes(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("c.json", "[" * 100_000, "c.json is nested too deep"),
        ("c.json", '{"a": "x", "a": "y", "b": "z"}', "c.json names 'a' twice"),
        ("c.json", '{"": "x", "b": "z"}', "c.json holds a class without a name"),
        ("c.json", '["\\ud800", "b"]', "c.json: .* is not Unicode text"),
        ("c.json", '{"a": [""], "b": "z"}', "c.json: class 'a' wants a phrase"),
    ],
)
def test_odd_classes_files_are_refused_by_name(name: str, content: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=text):
        class_list(tmp_path / name)


def test_words_that_are_no_text_are_refused() -> None:
    with pytest.raises(DataError, match="not Unicode text"):
        class_list("caf\udce9,b")
    with pytest.raises(DataError, match="not Unicode text"):
        check_templates(["a \udce9 {}"])
