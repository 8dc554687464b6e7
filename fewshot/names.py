"""Names of files as a store holds them: absolute, and Unicode even where the system's are not; and globs of them."""

from __future__ import annotations

import glob
import os
import re

ESCAPE = re.compile(rb"\\x([89a-f][0-9a-f])")  # of a byte that is not Unicode, as `storable` writes it


def storable(name: str) -> str:
    r"""Return a name with escapes, `\xff`, in place of bytes that are not Unicode; as such no file has it."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def is_escaped(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is a file that `storable` gives this name, with escapes that its own does not have."""
    name = os.fsencode(path)
    plain = ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), name)
    return plain != name and os.path.lexists(plain)


def stored_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path under which a store lists a file."""
    return storable(os.path.abspath(path))


def stored_glob(pattern: str) -> str:
    """Return a glob of whole paths from one that starts at the current folder unless it starts with `/` or `*`.

    The current folder stands for itself, even where its name holds a `[`.
    """
    if pattern.startswith("*"):
        return storable(pattern)
    return storable(os.path.normpath(os.path.join(glob.escape(os.getcwd()), pattern)))


def stored_globs(target: str) -> list[str]:
    """Return globs of whole paths for a file, for a folder with all that is in it, or for a glob that is neither."""
    if any(sign in target for sign in "*?[") and not os.path.exists(target):
        return [stored_glob(target)]
    path = glob.escape(stored_path(target))
    return [path, os.path.join(path, "*")]
