"""draw(): all episodes of a spec at once, from one numpy generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewshot.episodes import PAD, UNKNOWN, Episodes, EpisodeSpec, Range, data_hash
from fewshot.errors import DataError, unknown
from fewshot.sampling import Ints, Rows, apportion, dirichlet, long_tail, sample_ordered

SHUFFLED_AT_ONCE = 10_000  # episodes


@dataclass(frozen=True, slots=True)
class Pool:
    """The rows that one side of an episode may come from, sorted by class."""

    rows: Rows  # [n]
    start: Ints  # [C] where each class begins in `rows`
    size: Ints  # [C]


def draw(
    spec: EpisodeSpec,
    labels: NDArray[np.int64],
    *,
    splits: Sequence[str] = (),
    names: Sequence[str] = (),
    unseen: NDArray[np.bool_] | None = None,
) -> Episodes:
    """Draw every episode of a spec.

    Parameters
    ----------
    labels:
        class of each row, from 0.
    splits:
        split of each row, where the data has splits.
    names:
        class names, for error messages.
    unseen:
        which classes may be drawn as unseen ones ([C] bool); without it any class may.

    Raises
    ------
    DataError
        when the data has too few classes, or a class too few items; the class is named.
    UnknownName
        for a split that the data does not have.
    """
    rng = np.random.default_rng(spec.seed)
    classes = int(labels.max(initial=-1)) + 1
    support, query = _pools(spec, labels, splits, classes)
    chosen, ways = _draw_classes(rng, spec, support, query, unseen)  # [E, W + K] and [E]
    width = chosen.shape[1] - spec.unknown
    known = np.arange(width) < ways[:, None]  # [E, W] False for padding
    shots = _shots(rng, spec, known)  # [E, W + K]
    _check_sizes(spec, support, query, chosen, shots, names or [str(c) for c in range(classes)])
    label = np.where(np.arange(chosen.shape[1]) < width, np.arange(chosen.shape[1]), UNKNOWN)  # [W + K]
    ahead = shots if support is query else np.zeros_like(shots)  # items of the query pool that are support already
    asked = _query_counts(rng, spec, ways, query.size[chosen] - ahead, known)  # [E, W + K]
    apart = np.pad(known * spec.unlabeled, ((0, 0), (0, spec.unknown)))  # [E, W + K]
    first = spec.first and support is query
    items = _draw_items(rng, query, chosen, int((ahead + asked + apart).max()), first=first)
    taught = items if support is query else _draw_items(rng, support, chosen, int(shots.max()), first=spec.first)
    support_rows, support_labels = _pack(taught, np.zeros_like(shots), shots, label)
    query_rows, query_labels = _shuffle(rng, *_pack(items, ahead, asked, label))
    return Episodes(
        spec=spec,
        data=data_hash(labels, splits),
        classes=np.where(known, chosen[:, :width], PAD).astype(np.int32),
        support=support_rows,
        support_labels=support_labels,
        query=query_rows,
        query_labels=query_labels,
        unlabeled=_shuffle(rng, *_pack(items, ahead + asked, apart, label))[0],
    )


def _pools(spec: EpisodeSpec, labels: Ints, splits: Sequence[str], count: int) -> tuple[Pool, Pool]:
    """Support and query pools; one and the same object when both sides share their items."""
    support_split, apart, query_split = spec.split.partition(">")
    support = _pool(labels, splits, support_split, count, spec.each)
    return support, _pool(labels, splits, query_split, count, spec.each) if apart else support


def _pool(labels: Ints, splits: Sequence[str], split: str, count: int, each: int) -> Pool:
    rows = np.arange(len(labels))
    if split:
        if split not in splits:
            raise unknown("split", split, set(splits))
        rows = np.flatnonzero(np.asarray(splits) == split)
    rows = rows[labels[rows].argsort(kind="stable")]
    size = np.bincount(labels[rows], minlength=count)
    if each:
        rank = np.arange(len(rows)) - np.repeat(size.cumsum() - size, size)  # place of each row within its class
        rows, size = rows[rank < each], np.minimum(size, each)
    return Pool(rows.astype(np.int32), np.concatenate([[0], size.cumsum()[:-1]]), size)


def _draw_classes(
    rng: np.random.Generator, spec: EpisodeSpec, support: Pool, query: Pool, unseen: NDArray[np.bool_] | None
) -> tuple[Ints, Ints]:
    """Classes of each episode, the unknown ones last, and its way.  -> [E, W + K], [E]"""
    here = (query.size > 0) & ((support.size > 0) | (unseen if unseen is not None else False))
    able = np.flatnonzero(here)
    low, high = _span(spec.way if spec.way else len(able) - spec.unknown)
    need = high + spec.unknown
    if need > len(able) or low < 2:
        raise DataError(
            f"{len(able)} classes with items{f' in split {spec.split!r}' if spec.split else ''}, but way {high}"
            f"{f' and {spec.unknown} unknown classes' if spec.unknown else ''} need {max(need, 2)}"
        )
    ways = rng.integers(low, high + 1, spec.episodes)
    if spec.unseen and unseen is not None:
        seen, new = np.flatnonzero(here & ~unseen), np.flatnonzero(here & unseen)
        if len(seen) < need - spec.unseen or len(new) < spec.unseen:
            raise DataError(
                f"way {high} with {spec.unseen} unseen needs {need - spec.unseen} seen and {spec.unseen} unseen "
                f"classes; the data has {len(seen)} and {len(new)}"
            )
        a, b = _pick(rng, seen, spec.episodes, need - spec.unseen), _pick(rng, new, spec.episodes, spec.unseen)
        split = high - spec.unseen
        return np.concatenate([a[:, :split], b, a[:, split:]], 1), ways
    if spec.way == 0 and not spec.unknown:
        return np.tile(able, (spec.episodes, 1)), ways  # every class, in the data's order
    return _pick(rng, able, spec.episodes, need), ways


def _pick(rng: np.random.Generator, among: Ints, episodes: int, k: int) -> Ints:
    return among[sample_ordered(rng, np.full(episodes, len(among)), k)]


def _span(value: int | Range) -> Range:
    return value if isinstance(value, tuple) else (value, value)


def _shots(rng: np.random.Generator, spec: EpisodeSpec, known: NDArray[np.bool_]) -> Ints:
    """Support items of each class: none for unseen, unknown and padding ones.  [E, W] -> [E, W + K]"""
    low, high = _span(spec.shot)
    shots = rng.integers(low, high + 1, known.shape) * known
    if spec.unseen:
        shots[:, known.shape[1] - spec.unseen :] = 0
    return np.pad(shots, ((0, 0), (0, spec.unknown)))


def _check_sizes(
    spec: EpisodeSpec, support: Pool, query: Pool, chosen: Ints, shots: Ints, names: Sequence[str]
) -> None:
    """Name the first class with too few items for what may be asked of it."""
    used = np.unique(chosen)
    most = np.where(np.isin(used, chosen[shots > 0]), _span(spec.shot)[1], 0)  # support items each may have to give
    asked = (spec.query if spec.query and spec.marginal == "balanced" else 1) + spec.unlabeled
    if support is query:
        sides = [("shot + query", query, most + asked)]
    else:
        sides = [("shot", support, most), ("query", query, np.full(len(used), asked))]
    for what, pool, need in sides:
        short = np.flatnonzero(pool.size[used] < need)
        if len(short):
            worst = used[short[0]]
            where = f" in split {spec.split!r}" if spec.split else ""
            raise DataError(
                f"class {names[worst]!r} has {pool.size[worst]} items{where}, but {what} needs {need[short[0]]} "
                f"({len(short)} of {len(used)} classes have too few); lower --shot or --query"
            )


def _query_counts(
    rng: np.random.Generator, spec: EpisodeSpec, ways: Ints, room: Ints, known: NDArray[np.bool_]
) -> Ints:
    """Queries of each class.  [E], [E, W + K], [E, W] -> [E, W + K]"""
    width = known.shape[1]
    unknown_part = np.full((len(ways), spec.unknown), spec.query)
    if spec.marginal == "balanced":
        return np.concatenate([spec.query * known, unknown_part], 1) if spec.query else room * known
    free = np.where(known, room[:, :width] - spec.unlabeled, 0)  # [E, W]
    total = ways * (spec.query or np.where(known, free, free.max()).min(1))
    if (free.sum(1) < total).any():
        raise DataError(
            f"an episode's classes have {int(free.sum(1).min())} items left, "
            f"but its queries are {int(total.max())}; lower --query"
        )
    if spec.marginal == "dirichlet":
        share = dirichlet(rng, ways, width, spec.alpha)
    else:
        share = long_tail(ways, width, spec.imbalance)
        turn = np.where(known, rng.random(known.shape), 2.0).argsort(1)  # so that no label is always the largest class
        share = np.take_along_axis(share, turn.argsort(1), 1)
    return np.concatenate([apportion(share, total, free), unknown_part], 1)


def _draw_items(rng: np.random.Generator, pool: Pool, chosen: Ints, k: int, *, first: bool) -> Rows:
    """Rows of each class in random order, or in the data's own.  [E, W] -> [E, W, k]"""
    flat = chosen.reshape(-1)
    order = np.arange(k, dtype=np.int32)
    place = np.tile(order, (len(flat), 1)) if first else sample_ordered(rng, pool.size[flat], k)
    place += pool.start[flat, None].astype(np.int32)
    np.minimum(place, len(pool.rows) - 1, out=place)  # numbers past a class's end are never used; keep them in range
    return pool.rows[place].reshape(*chosen.shape, k)


def _pack(items: Rows, offset: Ints, count: Ints, label: Ints) -> tuple[Rows, Rows]:
    """Lay items [offset, offset + count) of every class one after another.  [E, W, k], 2 x [E, W], [W] -> 2 x [E, N]"""
    place = np.arange(items.shape[2])
    mask = (place >= offset[..., None]) & (place < (offset + count)[..., None])  # [E, W, k]
    total = count.sum(1)  # [E]
    inside = np.arange(int(total.max(initial=0))) < total[:, None]  # [E, N]
    rows = np.full(inside.shape, PAD, dtype=np.int32)
    labels = np.full(inside.shape, PAD, dtype=np.int32)
    rows[inside] = items[mask]
    labels[inside] = np.broadcast_to(label.astype(np.int32)[:, None], items.shape)[mask]
    return rows, labels


def _shuffle(rng: np.random.Generator, rows: Rows, labels: Rows) -> tuple[Rows, Rows]:
    """Put each episode's items into random order, so that their place tells nothing of their class.  2 x [E, N]"""
    for a in range(0, len(rows), SHUFFLED_AT_ONCE):  # in place: the keys weigh as much as rows and labels together
        part = slice(a, a + SHUFFLED_AT_ONCE)
        order = np.where(rows[part] == PAD, 2.0, rng.random(rows[part].shape)).argsort(1)
        rows[part] = np.take_along_axis(rows[part], order, 1)
        labels[part] = np.take_along_axis(labels[part], order, 1)
    return rows, labels


def fixed_episodes(
    spec: EpisodeSpec,
    labels: NDArray[np.int64],
    runs: Sequence[tuple[Sequence[int], Sequence[int]]],
    splits: Sequence[str],
) -> Episodes:
    """Episodes that the data itself prescribes, as (support rows, query rows) of equal lengths each.

    Raises
    ------
    DataError
        when the data has no episodes of its own, or a query's class has no support.
    """
    if not runs:
        raise DataError("this data has no episodes of its own; leave out fixed")
    support = np.array([run[0] for run in runs], dtype=np.int32)  # [E, S]
    query = np.array([run[1] for run in runs], dtype=np.int32)  # [E, Q]
    classes = np.stack([np.unique(labels[row]) for row in support]).astype(np.int32)  # [E, W]

    def within(rows: NDArray[np.int32]) -> NDArray[np.int32]:
        same = labels[rows][:, :, None] == classes[:, None, :]  # [E, N, W]
        if not same.any(-1).all():
            raise DataError("a query of the data's own episodes has a class without support")
        place: NDArray[np.int32] = same.argmax(-1).astype(np.int32)
        return place

    spec = dataclasses.replace(spec, fixed=True, episodes=len(runs), way=classes.shape[1])
    spec = dataclasses.replace(
        spec, shot=support.shape[1] // classes.shape[1], query=query.shape[1] // classes.shape[1]
    )
    return Episodes(
        spec=spec,
        data=data_hash(labels, splits),
        classes=classes,
        support=support,
        support_labels=within(support),
        query=query,
        query_labels=within(query),
        unlabeled=np.zeros((len(runs), 0), dtype=np.int32),
    )
