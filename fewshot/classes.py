"""Class names and their phrases: from the command line, a text file, JSON, TOML or CSV; prompt templates."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot.errors import DataError


@dataclass(frozen=True, slots=True)
class ClassList:
    """Class names in order; `phrases[i]` says how class i is described, empty for "by its name"."""

    names: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]

    def prompts(self, templates: Sequence[str] | None, default: Sequence[str]) -> list[list[str]]:
        """Write out the texts to embed for each class.

        A class without phrases has its name put into each template. Given phrases stand as they are, unless the user
        chose `templates`, which then apply to them too. `default` are the encoder's own templates.
        """
        chosen = check_templates(templates) if templates else list(default)
        return [
            [template.replace("{}", phrase) for phrase in phrases or (spoken(name),) for template in chosen]
            if templates or not phrases
            else list(phrases)
            for name, phrases in zip(self.names, self.phrases, strict=True)
        ]


def spoken(name: str) -> str:
    """Turn a folder name into words: `granny_smith` becomes `granny smith`."""
    return " ".join(name.replace("_", " ").split())


def check_text(text: str, what: str) -> None:
    """Refuse a text that no encoder can read, since it holds bytes that are not Unicode.

    Raises
    ------
    DataError
        naming the text.
    """
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise DataError(f"{what}: {text!r} is not Unicode text; save the file, or set the terminal, as UTF-8")


def check_templates(templates: Iterable[str]) -> list[str]:
    """Return the templates as a list, or raise DataError for one that has no `{}` for the class name."""
    checked = list(templates)
    for template in checked:
        if "{}" not in template:
            raise DataError(f"template {template!r} has no {{}} where the class name goes, as in 'a photo of a {{}}'")
        check_text(template, "template")
    return checked


def class_list(classes: str | Path | Sequence[str] | Mapping[str, str | Sequence[str]] | ClassList) -> ClassList:
    """Read classes from whatever names them: `"a,b,c"`, a file, a sequence of names, or names with phrases.

    Raises
    ------
    DataError
        for fewer than two classes, a name that stands twice, or a file that cannot be read.
    """
    if isinstance(classes, ClassList):
        return classes
    if isinstance(classes, Path):
        return read_classes(classes)
    if isinstance(classes, str):
        return _checked([(name, ()) for name in classes.split(",") if name.strip()], "the class list")
    if isinstance(classes, Mapping):
        return _checked(
            [(name, _phrases(value, name, "the class list")) for name, value in classes.items()], "the class list"
        )
    return _checked([(name, ()) for name in classes], "the class list")


def read_classes(path: Path) -> ClassList:
    """Read a class file: names a line (.txt), or several phrases a class (.json, .toml, .csv).

    JSON holds a list of names, or an object from name to a phrase or list of phrases. TOML holds the same object, at
    the top or under `[classes]`. CSV holds a class in the first column and a phrase in the second, a row a phrase.

    Raises
    ------
    DataError
        naming the file, for anything else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"classes file {path} cannot be read: {error}") from error
    kind = path.suffix.lower()
    try:
        if kind == ".json":
            pairs = _from_object(json.loads(text, object_pairs_hook=lambda rows: _once(rows, path)), path)
        elif kind == ".toml":
            content = tomllib.loads(text)
            pairs = _from_object(content.get("classes", content), path)
        elif kind == ".csv":
            pairs = _from_rows(list(csv.reader(text.splitlines())))
        else:
            lines = (line.strip() for line in text.splitlines())
            pairs = [(line, ()) for line in lines if line and not line.startswith("#")]
    except RecursionError as error:
        raise DataError(
            f"classes file {path} is nested too deep; it must hold class names and their phrases"
        ) from error
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, csv.Error) as error:
        raise DataError(f"classes file {path} is not valid {kind[1:].upper()}: {error}") from error
    return _checked(pairs, f"classes file {path}")


def _from_object(content: object, path: Path) -> list[tuple[str, tuple[str, ...]]]:
    if isinstance(content, dict):
        return [(str(name), _phrases(value, str(name), f"classes file {path}")) for name, value in content.items()]
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return [(name, ()) for name in content]
    raise DataError(f"classes file {path} must hold a list of names, or an object from class to phrases")


def _once(rows: list[tuple[str, object]], path: Path) -> dict[str, object]:
    """Make an object of a JSON file's rows, of which a plain dict would keep only the last of each name."""
    names = [name for name, _ in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"classes file {path} names {twice[0]!r} twice")
    return dict(rows)


def _from_rows(rows: list[list[str]]) -> list[tuple[str, tuple[str, ...]]]:
    if rows and rows[0] and rows[0][0].strip().lower() in ("class", "name", "label"):
        rows = rows[1:]
    phrases: dict[str, list[str]] = {}
    for row in rows:
        if row and row[0].strip():
            phrases.setdefault(row[0].strip(), []).extend(cell.strip() for cell in row[1:2] if cell.strip())
    return [(name, tuple(found)) for name, found in phrases.items()]


def _phrases(value: object, name: str, what: str) -> tuple[str, ...]:
    phrases = (value,) if isinstance(value, str) else value
    if not isinstance(phrases, list | tuple) or not all(isinstance(p, str) and p.strip() for p in phrases):
        raise DataError(f"{what}: class {name!r} wants a phrase or a list of phrases, got {value!r}")
    return tuple(phrases)


def _checked(pairs: Sequence[tuple[str, tuple[str, ...]]], what: str) -> ClassList:
    names = [name.strip() for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{what} names {twice[0]!r} twice")
    if "" in names:
        raise DataError(f"{what} holds a class without a name; give it one")
    for text in (text for name, (_, phrases) in zip(names, pairs, strict=True) for text in (name, *phrases)):
        check_text(text, what)
    if len(names) < 2:
        raise DataError(f"{what} names {len(names)} class{'' if len(names) == 1 else 'es'}; give at least two")
    return ClassList(tuple(names), tuple(phrases for _, phrases in pairs))
