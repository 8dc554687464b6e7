"""Options of strategies: dataclass fields to and from `-o key=value`, JSON and help text."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fewshot.errors import InvalidOption, unknown

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """One option as shown by `fewshot strategies show NAME`."""

    name: str
    type: str
    default: object
    help: str
    range: str


def option(
    default: T,
    help: str,  # noqa: A002 - the word users of click know
    *,
    min: float | None = None,  # noqa: A002
    max: float | None = None,  # noqa: A002
    choices: tuple[str, ...] = (),
) -> T:
    """Declare a field of a strategy as an option with help text and, where it has them, inclusive bounds or choices."""
    meta = {"help": help, "min": min, "max": max, "choices": choices}
    field: T = dataclasses.field(default=default, metadata=meta)
    return field


def option_infos(cls: type) -> list[OptionInfo]:
    """Describe every option of a strategy class, in declared order."""
    hints = typing.get_type_hints(cls)
    return [
        OptionInfo(f.name, _type_name(hints[f.name]), f.default, f.metadata.get("help", ""), _range_text(f.metadata))
        for f in dataclasses.fields(cls)
    ]


def build(cls: type[T], values: Mapping[str, object]) -> T:
    """Make a strategy of `cls` from options given as text (`-o key=value`) or as JSON values.

    Raises
    ------
    UnknownName
        for a key that is no option, with the nearest one suggested.
    InvalidOption
        for a value of the wrong type or out of range.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    label = getattr(cls, "name", cls.__name__)
    parsed: dict[str, object] = {}
    for key, value in values.items():
        if key not in fields:
            raise unknown(f"option of {label}", key, fields)
        parsed[key] = _parse(f"{label}: option {key}", value, hints[key])
        _check_range(f"{label}: option {key}", parsed[key], fields[key].metadata)
    return cls(**parsed)


def to_json(strategy: object) -> dict[str, object]:
    """Return every option with its value; `build(type(strategy), to_json(strategy))` gives an equal strategy."""
    return {f.name: getattr(strategy, f.name) for f in dataclasses.fields(strategy)}  # type: ignore[arg-type]


def split_pairs(pairs: typing.Iterable[str]) -> dict[str, str]:
    """Turn `key=value` words of the command line into a dict.

    Raises
    ------
    InvalidOption
        for a word without `=`.
    """
    values = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key.strip():
            raise InvalidOption(f"option {pair!r} is not of the form key=value")
        values[key.strip().replace("-", "_")] = value.strip()
    return values


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _type_name(hint: Any) -> str:
    return " | ".join("none" if t is type(None) else getattr(t, "__name__", str(t)) for t in _alternatives(hint))


def _range_text(meta: Mapping[str, Any]) -> str:
    if meta.get("choices"):
        return " | ".join(meta["choices"])
    low, high = meta.get("min"), meta.get("max")
    if low is None and high is None:
        return ""
    return f"[{'-inf' if low is None else low}, {'inf' if high is None else high}]"


def _parse(what: str, value: object, hint: Any) -> object:
    kinds = _alternatives(hint)
    for kind in kinds:
        if kind is type(None) and (value is None or (isinstance(value, str) and value.lower() in ("none", "null", ""))):
            return None
    for kind in kinds:
        converted = _convert(value, kind)
        if converted is not None:
            return converted
    raise InvalidOption(f"{what} wants {_type_name(hint)}, got {value!r}")


def _convert(value: object, kind: Any) -> object | None:
    if kind is bool:
        word = str(value).lower()
        return True if word in ("true", "yes", "on", "1") else False if word in ("false", "no", "off", "0") else None
    if isinstance(value, bool):
        return None
    if kind is int:
        try:
            return int(str(value))
        except ValueError:
            return None
    if kind is float:
        try:
            number = float(str(value))
        except ValueError:
            return None
        return number if number == number else None
    return str(value) if kind is str and isinstance(value, str) else None


def _check_range(what: str, value: object, meta: Mapping[str, Any]) -> None:
    if meta.get("choices") and value is not None and value not in meta["choices"]:
        raise InvalidOption(f"{what} wants one of {', '.join(meta['choices'])}, got {value!r}")
    low, high = meta.get("min"), meta.get("max")
    if isinstance(value, (int, float)) and ((low is not None and value < low) or (high is not None and value > high)):
        raise InvalidOption(f"{what} must lie in {_range_text(meta)}, got {value!r}")
