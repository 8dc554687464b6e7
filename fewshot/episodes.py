"""Episodes: what a benchmark draws, all at once from one generator, as rows of a labelled set of embeddings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import InvalidOption, unknown

PAD = -1  # fills the short rows of ragged episodes
UNKNOWN = -2  # label of a query whose class is none of the episode's

MARGINALS = ("balanced", "longtail", "dirichlet")
Range = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSpec:
    """What to draw. Together with the data it fixes every episode.

    Raises
    ------
    InvalidOption
        for a value out of its range.
    """

    way: int | Range = 5  # classes an episode, or a range drawn uniformly an episode; 0 is every class
    shot: int | Range = 5  # labelled items a class, or a range drawn uniformly a class
    query: int = 15  # queries a class, on average when not balanced; 0 is every item that is left, see `marginal`
    episodes: int = 600
    seed: int = 0
    marginal: str = "balanced"  # spread of queries over classes; query 0: mean is what the smallest class has left
    alpha: float = 2.0  # concentration of the Dirichlet marginal
    imbalance: float = 10.0  # largest over smallest class of the long-tailed marginal
    unlabeled: int = 0  # items a class, drawn apart for transductive strategies; 0 gives them the queries themselves
    unknown: int = 0  # further classes that send `query` queries each and have no support (open set)
    unseen: int = 0  # how many of the classes have no support (generalised zero-shot)
    split: str = ""  # where items come from: "" everywhere, "test" one split, "train>test" support and queries apart
    source: str = ""  # split that transfer strategies get as their source domain; none of its items is a query
    fixed: bool = False  # the data's own episodes instead of drawn ones, e.g. Omniglot's one-shot challenge
    each: int = 0  # use only the first so many items of each class and split, to embed less; 0 is all
    first: bool = False  # support is the first items of each class in the data's order, as fixed splits want

    def __post_init__(self) -> None:
        """Check every value."""
        _check_range("way", self.way, 2, zero=True)
        _check_range("shot", self.shot, 0)
        for name, low in (
            ("query", 0),
            ("episodes", 1),
            ("seed", 0),
            ("unlabeled", 0),
            ("unknown", 0),
            ("unseen", 0),
            ("each", 0),
        ):
            if getattr(self, name) < low:
                raise InvalidOption(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.marginal not in MARGINALS:
            raise unknown("marginal", self.marginal, MARGINALS)
        if not (0 < self.alpha < math.inf and 1 <= self.imbalance < math.inf):
            raise InvalidOption(f"alpha must be > 0 and imbalance >= 1, got {self.alpha} and {self.imbalance}")
        if self.unknown and not self.query:
            raise InvalidOption("unknown classes need a number of queries; query is 0 (everything)")
        if self.unlabeled and not self.query:
            raise InvalidOption("unlabeled items are drawn apart from the queries, but query is 0 (everything)")
        taught, apart, asked = self.split.partition(">")
        if apart and (not taught or not asked or taught == asked):
            raise InvalidOption(
                f"split {self.split!r} would make examples of queries; name two splits, as in train>test, or one"
            )
        if self.source and self.source == (asked if apart else self.split or self.source):
            raise InvalidOption(
                f"queries may come from split {self.source!r}, which is the source, with their labels; name another "
                "split for them, as in split test"
            )
        if self.unseen and (isinstance(self.way, tuple) or (self.way and self.unseen > self.way)):
            raise InvalidOption(f"unseen wants one way of at least {self.unseen} classes, got way {self.way}")

    def to_dict(self) -> dict[str, Any]:
        """Return every field as a JSON value; `from_dict` reads it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpisodeSpec:
        """Build a spec from JSON or TOML values; an unknown key raises UnknownName, a wrong type InvalidOption."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        ready: dict[str, Any] = {}
        for key, value in values.items():
            if key not in fields:
                raise unknown("episode setting", key, fields)
            ready[key] = _convert(key, value, type(fields[key].default))
        return cls(**ready)


def _check_range(name: str, value: int | Range, low: int, *, zero: bool = False) -> None:
    ends = value if isinstance(value, tuple) else (value, value)
    if (zero and value == 0) or (len(ends) == 2 and low <= ends[0] <= ends[1]):
        return
    raise InvalidOption(f"{name} must be a number or a rising pair of at least {low}, got {value}")


def _convert(key: str, value: object, kind: type) -> object:
    if key in ("way", "shot") and isinstance(value, list | tuple) and all(type(v) is int for v in value):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InvalidOption(f"episode setting {key} wants {kind.__name__}, got {value!r}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """Drawn episodes as rows of the data. Labels count from 0 within an episode; PAD fills short rows."""

    spec: EpisodeSpec
    data: str  # what `data_hash` says of the labels that the rows point into
    classes: NDArray[np.int32]  # [E, W] class of each label
    support: NDArray[np.int32]  # [E, S] rows
    support_labels: NDArray[np.int32]  # [E, S] in [0, W)
    query: NDArray[np.int32]  # [E, Q] rows, in random order
    query_labels: NDArray[np.int32]  # [E, Q] in [0, W), or UNKNOWN
    unlabeled: NDArray[np.int32]  # [E, U] rows; U = 0 when the queries serve

    def __len__(self) -> int:
        """E, the number of episodes."""
        return len(self.classes)

    @property
    def ways(self) -> NDArray[np.int64]:
        """Number of classes of each episode.  [E]"""
        found: NDArray[np.int64] = (self.classes >= 0).sum(1)
        return found

    @property
    def queries(self) -> NDArray[np.int64]:
        """Number of queries of each episode.  [E]"""
        found: NDArray[np.int64] = (self.query != PAD).sum(1)
        return found

    def checksum(self) -> str:
        """SHA-256 of all rows and labels: equal for equal episodes on every machine."""
        digest = hashlib.sha256(self.data.encode())
        for name in ARRAYS:
            array: NDArray[np.int32] = getattr(self, name)
            digest.update(f"{name}{array.shape}".encode())
            digest.update(array.astype("<i4").tobytes())
        return digest.hexdigest()


ARRAYS = ("classes", "support", "support_labels", "query", "query_labels", "unlabeled")


def data_hash(labels: NDArray[np.int64], splits: Sequence[str] = ()) -> str:
    """Short name of what episodes are drawn from: the label and split of every row."""
    digest = hashlib.sha256(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    digest.update(json.dumps(list(splits)).encode())
    return digest.hexdigest()[:16]
