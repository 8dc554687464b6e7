"""Model hubs: what is on this machine already, whether the network is there, and what to say when neither helps."""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from fewshot.errors import UnknownName, WeightsMissing

HOST = "huggingface.co"
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT")


def offline() -> bool:
    """Whether asking the hub is pointless; the hub's own client would find out after half a minute of retries."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return True
    if any(os.environ.get(name) for name in PROXIES):
        return False  # the way out does not lead through our own socket
    try:
        socket.create_connection((HOST, 443), timeout=3).close()
    except OSError:
        return True
    return False


def cached(repo: str, names: Sequence[str]) -> Path | None:
    """Return the first of these files of a hub repository that is in the hub's cache on this machine.

    Raises
    ------
    UnknownName
        when no repository can have that name.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in names:
        try:
            found = try_to_load_from_cache(repo, name)
        except HFValidationError as error:
            raise UnknownName(f"{repo!r} is neither a folder on this machine nor a name on a model hub") from error
        if isinstance(found, str):
            return Path(found)
    return None


def cache_place() -> str:
    """Return the folder in which the hub's client keeps its files."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(HF_HUB_CACHE)


def missing(encoder: str, source: str, instead: str, reason: str = "the network is out of reach") -> WeightsMissing:
    """Build the error for weights that are neither here nor to be had: where they are, where to put them."""
    return WeightsMissing(
        f"weights of {encoder!r} are not on this machine and {reason}; on a machine with a network download {source}, "
        f"copy it here and use {instead}, or copy that machine's {cache_place()}"
    )


def unknown_model(kind: str, name: str, known: Sequence[str], listing: str) -> UnknownName:
    """Build the error for a name among too many to list; upper and lower case do not matter for the suggestion."""
    by_lower = {model.lower(): model for model in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f" Did you mean {by_lower[near[0]]!r}?" if near else ""
    return UnknownName(f"unknown {kind} {name!r}.{hint} {len(known)} are known: {listing}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
