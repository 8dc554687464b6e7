"""Heads as named tensors plus JSON, by walking their fields; nothing is ever imported or run by a name from a file."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fewshot.calibrate import ScaledHead
from fewshot.errors import FormatError
from fewshot.strategy import Head, LinearHead, StackedHead, Strategy

MAX_DEPTH = 8  # heads inside heads; a damaged file must not exhaust the stack


def head_to_tensors(head: Head) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Take a head apart into tensors named by their path, and a JSON-able description of the rest.

    The description of a head is `{"type": class name, "fields": {...}}`; in it a tensor is `{"tensor": path}`, a tuple
    is a list, and scalars are themselves. Tensors are contiguous copies on the CPU that share no memory.

    Raises
    ------
    TypeError
        when a field is neither a tensor, a plain scalar, a head nor a tuple of these: a fault of the strategy's author.
    """
    tensors: dict[str, Tensor] = {}
    meta = _describe(head, "", tensors)
    return tensors, typing.cast("dict[str, object]", meta)


def _describe(value: object, path: str, tensors: dict[str, Tensor]) -> object:
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_describe(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, Head) and hasattr(value, "__dataclass_fields__"):
        prefix = f"{path}." if path else ""
        found = {name: getattr(value, name) for name in value.__dataclass_fields__}
        named = {name: _describe(item, prefix + name, tensors) for name, item in found.items()}
        return {"type": type(value).__name__, "fields": named}
    raise TypeError(
        f"a head's field {path or '(the head)'} is a {type(value).__name__}; heads hold tensors, plain "
        "scalars, other heads (frozen dataclasses with logits) and tuples of these"
    )


def head_from_tensors(strategy: type[Strategy], tensors: Mapping[str, Tensor], meta: object) -> Head:
    """Put a head together again. Its types come from `strategy.heads` and those of the core, by class name.

    Raises
    ------
    FormatError
        when the description is damaged, names a type that is not the strategy's, or does not fit the tensors.
    """
    known = {cls.__name__: cls for cls in (LinearHead, StackedHead, ScaledHead, *strategy.heads)}
    used: set[str] = set()
    head = _restore(meta, tensors, known, used, 0)
    if not isinstance(head, Head):
        raise FormatError(f"the head of a {strategy.name!r} model is damaged: its description is not that of a head")
    if left := sorted(set(tensors) - used):
        raise FormatError(f"the head of a {strategy.name!r} model is damaged: nothing uses tensor {left[0]!r}")
    return head


def _restore(meta: object, tensors: Mapping[str, Tensor], known: Mapping[str, type], used: set[str], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise FormatError(f"the head is damaged: its description is nested more than {MAX_DEPTH} deep")
    if meta is None or isinstance(meta, bool | int | float | str):
        return meta
    if isinstance(meta, list):
        return tuple(_restore(item, tensors, known, used, depth + 1) for item in meta)
    if isinstance(meta, dict) and set(meta) == {"tensor"}:
        path = meta["tensor"]
        if not isinstance(path, str) or path not in tensors:
            raise FormatError(f"the head is damaged: tensor {path!r} is missing")
        used.add(path)
        return tensors[path]
    if isinstance(meta, dict) and set(meta) == {"type", "fields"} and isinstance(meta["fields"], dict):
        cls = known.get(meta["type"]) if isinstance(meta["type"], str) else None
        if cls is None:
            raise FormatError(f"unknown head type {meta['type']!r}; this strategy makes {', '.join(sorted(known))}")
        parts = {n: _restore(part, tensors, known, used, depth + 1) for n, part in meta["fields"].items()}
        return _make(cls, parts)
    raise FormatError(f"the head is damaged: {str(meta)[:60]!r} describes neither a tensor, a scalar nor a head")


def _make(cls: type, parts: dict[str, object]) -> Any:
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}
    if names != set(parts):
        odd = sorted(names ^ set(parts))
        raise FormatError(f"the head is damaged: {cls.__name__} is missing or does not know {', '.join(odd)}")
    for name, value in parts.items():
        if not _fits(value, hints[name]):
            raise FormatError(f"the head is damaged: {cls.__name__}.{name} cannot be a {type(value).__name__}")
    return cls(**parts)


def _fits(value: object, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(hint))
    origin = typing.get_origin(hint)
    if origin is tuple:
        args = typing.get_args(hint)
        return isinstance(value, tuple) and (args[-1] is not Ellipsis or all(_fits(item, args[0]) for item in value))
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)
