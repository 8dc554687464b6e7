"""Every error a user can meet. The command line turns each into one line on stderr and exit code 2.

::

    FewshotError
    ├── UnknownName          (LookupError)        no strategy, encoder, dataset or option of that name
    ├── InvalidOption        (ValueError)         an option's value cannot be used
    ├── InvalidTask          (ValueError)         tensors of a task do not fit each other, or hold NaN
    ├── MissingInput         (ValueError)         a strategy needs examples, phrases, attributes ... that are absent
    ├── DataError            (ValueError)         a folder, table or class list cannot be used as it is
    ├── ImageError           (OSError)            one picture cannot be read
    ├── WeightsMissing       (FileNotFoundError)  an encoder's weights are not on this machine
    ├── FingerprintMismatch  (ValueError)         two things were made by different encoders
    ├── FormatError          (ValueError)         a file is damaged, too new, or not one of ours
    ├── OutputExists         (FileExistsError)    refuses to overwrite
    ├── StoreLocked          (BlockingIOError)    another process is writing to the same store
    ├── OutputError          (OSError)            a file or folder cannot be written
    ├── NotEnoughMemory      (MemoryError)        what was asked for does not fit into memory
    └── PluginError          (RuntimeError)       a plugin cannot be loaded, registers something wrong or fails
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FewshotError(Exception):
    """The root of this tree."""


class UnknownName(FewshotError, LookupError):
    """A name that nothing answers to; build it with `unknown`, which suggests the nearest."""


class InvalidOption(FewshotError, ValueError):
    """An option has a value of the wrong type or outside its range."""


class InvalidTask(FewshotError, ValueError):
    """Tensors of a task disagree in shape, or hold a value that is not finite."""


class MissingInput(FewshotError, ValueError):
    """A strategy needs something the task does not hold."""


class DataError(FewshotError, ValueError):
    """A folder, table, class list or attribute table cannot be used as it is."""


class ImageError(FewshotError, OSError):
    """One picture cannot be read; runs over many pictures skip and count it. `reason` is the text without the name."""

    def __init__(self, reason: str, picture: str = "") -> None:
        super().__init__(f"cannot read {picture}: {reason}" if picture else reason)
        self.reason = reason


class WeightsMissing(FewshotError, FileNotFoundError):
    """An encoder's weights are not on this machine."""


class FingerprintMismatch(FewshotError, ValueError):
    """Embeddings, indexes or heads of different encoders were brought together."""


class FormatError(FewshotError, ValueError):
    """A file is damaged, of a newer version, or not one of ours."""


class OutputExists(FewshotError, FileExistsError):
    """The output is there already and would be overwritten."""


class StoreLocked(FewshotError, BlockingIOError):
    """Another process is writing to the same store."""


class OutputError(FewshotError, OSError):
    """A file or folder cannot be written."""


class NotEnoughMemory(FewshotError, MemoryError):
    """What was asked for does not fit into memory, or into the part of it that may be used."""


class PluginError(FewshotError, RuntimeError):
    """A plugin cannot be loaded, registers something wrong, or fails in what it is asked to do."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """Build the error for a `name` that is not among the `known` ones of its `kind`."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownName(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}")
