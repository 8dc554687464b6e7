"""Suites: which data, encoders, strategies and episodes a benchmark runs, from a TOML file or from words."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot.compose import make_strategy, parse_strategy
from fewshot.episodes import EpisodeSpec
from fewshot.errors import DataError, FewshotError, InvalidOption, unknown
from fewshot.registry import registry

SPEC_KEYS = tuple(f.name for f in dataclasses.fields(EpisodeSpec))
RUN_KEYS = ("dataset", "path", "encoders", "strategies", "optional", "calibrate", *SPEC_KEYS)
SUITE_KEYS = ("run", "encoders", "strategies", "calibrate", *SPEC_KEYS)


@dataclass(frozen=True, slots=True)
class Run:
    """One data set with everything to try on it."""

    dataset: str
    path: Path | None
    encoders: tuple[str, ...]
    strategies: tuple[tuple[str, Mapping[str, str]], ...]  # name and options
    specs: tuple[EpisodeSpec, ...]
    optional: bool = False  # leave it out, with a note, when its data is not there
    calibrate: bool = False  # leave-one-out temperature scaling of every strategy
    source: str = ""  # data set and path as written, for who wants to find the data again


@dataclass(frozen=True, slots=True)
class Suite:
    """What a benchmark runs, in order."""

    runs: tuple[Run, ...] = field(default_factory=tuple)


def read_suite(path: Path) -> Suite:
    """Read a suite file: defaults at the top, then a `[[run]]` table for each data set.

    `dataset` names a registered one; `path` says where its files are, relative to the suite file, with environment
    variables (`$FEWSHOT_DATA/omniglot`). `strategies` holds names, or `name:key=value,key=value`. With `optional` a run
    is left out when its data is not there; `calibrate` scales probabilities as `fit_calibrated` does. Every setting of
    `EpisodeSpec` may stand at the top or in a run; a list for `way`, `shot`, `marginal` or `seed` tries each value, and
    a range is written "1-5".

    Raises
    ------
    DataError
        naming file and line, for wrong TOML, a wrong key or name, or a value that cannot be used.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"suite {path} cannot be read: {error}") from error
    runs = content.pop("run", [])
    _check_keys(path, text, content, SUITE_KEYS, 0)
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise DataError(f"suite {path} has no [[run]] table; write one for each data set")
    found = []
    for number, run in enumerate(runs, 1):
        _check_keys(path, text, run, RUN_KEYS, number)
        try:
            found.append(_run({**content, **run}, path.parent))
            check_names(found[-1])
        except FewshotError as error:
            raise DataError(f"{path}, line {_table_line(text, number)}: {error}") from error
    return Suite(tuple(found))


def _run(values: Mapping[str, Any], folder: Path) -> Run:
    for key in ("dataset", "strategies"):
        if key not in values:
            raise DataError(f"a run wants {key!r}")
    encoders, strategies = values.get("encoders", ["lite"]), values["strategies"]
    for key, value in (("encoders", encoders), ("strategies", strategies)):
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise DataError(f"{key!r} wants a list of names, got {value!r}")
    for key in ("optional", "calibrate"):
        if not isinstance(values.get(key, False), bool):
            raise DataError(f"{key!r} wants true or false, got {values[key]!r}")
    settings = {k: v for k, v in values.items() if k in SPEC_KEYS}
    return Run(
        str(values["dataset"]),
        _path(str(values["path"]), folder) if "path" in values else None,
        tuple(encoders),
        tuple(parse_strategy(s) for s in strategies),
        specs(settings),
        bool(values.get("optional", False)),
        bool(values.get("calibrate", False)),
        _source(values, folder),
    )


def check_names(run: Run) -> None:
    """Find wrong names and options of a run before anything of the suite is run.

    Raises
    ------
    UnknownName, InvalidOption
        for a data set, encoder, strategy or option that is not there.
    """
    registry().dataset(run.dataset)
    for name in run.encoders:
        registry().encoder(name.partition(":")[0])
    for name, options in run.strategies:
        make_strategy(name, options)


def _path(text: str, folder: Path) -> Path:
    """Put environment variables in; `$FEWSHOT_DATA` is `../../shared/data` beside the suite unless it is set."""
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        raise DataError(f"path {text!r} names an environment variable that is not set")
    return folder / Path(expanded).expanduser()


def _source(values: Mapping[str, Any], folder: Path) -> str:
    """Name the data as `--dataset` does; variables stay as they are, so that the name means the same elsewhere."""
    if "path" not in values:
        return str(values["dataset"])
    path = str(values["path"])
    return f"{values['dataset']}={path if path.startswith(('$', '~')) else folder / path}"


def specs(settings: Mapping[str, Any]) -> tuple[EpisodeSpec, ...]:
    """Every combination of the settings that hold several values.

    Raises
    ------
    UnknownName, InvalidOption
        for a wrong key or value.
    """
    choices = {}
    for key, value in settings.items():
        several = value if isinstance(value, list | tuple) and key in ("way", "shot", "marginal", "seed") else [value]
        if not several:
            raise InvalidOption(f"{key} wants at least one value, got none")
        choices[key] = [_range(key, v) if key in ("way", "shot") else v for v in several]
    combined = itertools.product(*choices.values())
    return tuple(EpisodeSpec.from_dict(dict(zip(choices, values, strict=True))) for values in combined)


def _range(key: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    if match := re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", value):
        return [int(match[1]), int(match[2])]
    if value.strip() == "all" and key == "way":
        return 0
    try:
        return int(value)
    except ValueError:
        raise InvalidOption(f"{key} wants numbers or ranges such as 5 or 2-10, got {value!r}") from None


def _check_keys(path: Path, text: str, values: Mapping[str, Any], known: Sequence[str], table: int) -> None:
    for key in values:
        if key not in known:
            error = unknown("setting", key, known)
            raise DataError(f"{path}, line {_key_line(text, key, table)}: {error}")


def _table_line(text: str, table: int) -> int:
    """Line of the table-th `[[run]]`, from 1; 1 for the top of the file."""
    starts = [n for n, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[\s*run\s*\]\]", line)]
    return starts[table - 1] if 0 < table <= len(starts) else 1


def _key_line(text: str, key: str, table: int) -> int:
    """Line on which a key of a table stands; the table's own line when it is written in an unusual way."""
    start = _table_line(text, table)
    for number, line in enumerate(text.splitlines(), 1):
        if number >= start and re.match(rf"""\s*\[?\s*["']?{re.escape(key)}["']?\s*[=.\]]""", line):
            return number
    return start
