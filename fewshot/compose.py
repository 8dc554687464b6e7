"""Strategies by name, and an aligning one put before any other: `-s gda -o align=coral`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import cast

from fewshot.errors import InvalidOption
from fewshot.options import build, split_pairs, to_json
from fewshot.registry import registry
from fewshot.strategy import Strategy

HAND_OVER = "then"  # the option of a strategy that aligns domains and then asks another one


def parse_strategy(word: str) -> tuple[str, dict[str, str]]:
    """Split `name:key=value,key=value` into a name and options."""
    name, _, pairs = word.partition(":")
    return name, split_pairs(p for p in pairs.split(",") if p)


def make_strategy(name: str, options: Mapping[str, object]) -> Strategy:
    """Make a strategy; its option `align=NAME` puts the aligning strategy NAME (`coral`, `tca` ...) before it.

    `-s gda -o align=coral -o shrink=0.2` is `-s coral -o then=gda:shrink=0.2`: the other options stay those of `gda`,
    and `align=coral:shrink=0.5` gives some to `coral`.

    Raises
    ------
    UnknownName
        for a name or option that is not there.
    InvalidOption
        for a value out of range, or an `align` that does not align.
    """
    own = dict(options)
    cls = registry().strategy(name)
    if "align" not in own or "align" in _options(cls):
        return build(cls, own)
    word = str(own.pop("align"))
    aligner, given = parse_strategy(word)
    outer = registry().strategy(aligner)
    if HAND_OVER not in _options(outer):
        known = sorted(n for n, other in registry().strategies.items() if HAND_OVER in _options(other))
        raise InvalidOption(f"align={word}: {aligner!r} aligns nothing; use one of {', '.join(known)}")
    inner = build(cls, own)
    asked = ",".join(f"{key}={value}" for key, value in to_json(inner).items() if key in own)
    return build(outer, {**given, HAND_OVER: f"{name}:{asked}" if asked else name})


def _options(cls: type[Strategy]) -> set[str]:
    return {field.name for field in fields(cast("type", cls))}
