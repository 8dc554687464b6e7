"""Run a suite: embed once, draw once, evaluate every strategy on the same episodes, go on where a run stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.arrays import pick_device
from fewshot.classes import spoken
from fewshot.compose import make_strategy
from fewshot.datasets import Items
from fewshot.drawing import draw, fixed_episodes
from fewshot.embed_items import embed_items
from fewshot.encoders import Encoder, load_encoder
from fewshot.episode_files import load_episodes
from fewshot.episode_files import save_episodes as save_episodes_file
from fewshot.episodes import Episodes, EpisodeSpec
from fewshot.errors import DataError, MissingInput
from fewshot.evaluate import evaluate
from fewshot.features import Features
from fewshot.options import to_json
from fewshot.problem import embed_phrases
from fewshot.provenance import versions
from fewshot.registry import registry
from fewshot.report import Report, Result, result_from_dict, result_to_dict
from fewshot.report_table import task_name
from fewshot.strategy import Strategy
from fewshot.suite import Run, Suite

Say = Callable[[str], None]


class Journal:
    """Finished cells of an interrupted run, one JSON line each, beside the report they will become."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.done: dict[str, Result] = {}
        self._start = ""  # of the next line
        if path is not None and path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            self._start = "" if text.endswith("\n") or not text else "\n"
            for line in text.splitlines():
                try:
                    entry = json.loads(line)
                    self.done[entry["key"]] = result_from_dict(entry["result"])
                except (ValueError, KeyError, TypeError):
                    continue  # the line that was being written when the run stopped

    def add(self, key: str, result: Result) -> None:
        """Write down a finished cell at once."""
        self.done[key] = result
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._start + json.dumps({"key": key, "result": result_to_dict(result)}) + "\n")
            self._start = ""


def run_suite(
    suite: Suite,
    *,
    device: str = "auto",
    cache: Path | None = None,
    journal: Path | None = None,
    episodes_from: Path | None = None,
    save_episodes: Path | None = None,
    only: Collection[str] = (),
    say: Say = lambda _: None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Run every cell of a suite: a data set, an encoder, a spec and a strategy.

    Parameters
    ----------
    journal:
        file that keeps finished cells; a run that finds it goes on from there. Whoever writes the report removes it.
    episodes_from:
        file of episodes to run instead of those of the suite, whose data must be what they were drawn from.
    save_episodes:
        folder that gets a file of every set of episodes.
    only:
        names of the strategies to run; the others are left out, which changes no episode. All when empty.
    say:
        called with notes for the user.
    progress:
        called with a cell's title, the episodes just done and the episodes of the cell; first with none done.

    Raises
    ------
    FewshotError
        for unknown names, data that is missing or too small, and whatever a strategy refuses.
    """
    strategies = [[make_strategy(n, o) for n, o in run.strategies] for run in suite.runs]
    kept = Journal(journal)
    if kept.done:
        say(f"going on from {len(kept.done)} finished cells in {journal}")
    where = pick_device(device)
    given = None if episodes_from is None else [load_episodes(episodes_from).spec]
    results: list[Result] = []
    for run, chosen, title in zip(suite.runs, strategies, data_titles(suite.runs), strict=True):
        wanted = [s for s in chosen if not only or s.name in only]
        if not wanted:
            continue
        try:
            items = of_splits(registry().dataset(run.dataset)().load(run.path), given or run.specs)
        except DataError as error:
            if not run.optional:
                raise
            say(f"left out {run.dataset}: {error}")
            continue
        if items.features is None:
            _refuse_early(run.encoders, wanted, () if given else run.specs, items, str(where))
        for features, encoder in embedded(title, items, run.encoders, str(where), cache, say):
            for episodes in _drawn(run, features, chosen, episodes_from):
                if save_episodes is not None:
                    _save(save_episodes, features, episodes)
                cells = (_cell(s, run, features, encoder, items, episodes, where, kept, progress) for s in wanted)
                results.extend(dataclasses.replace(cell, source=run.source) for cell in cells)
    return Report(tuple(results))


def _refuse_early(
    encoders: Sequence[str], strategies: Sequence[Strategy], specs: Sequence[EpisodeSpec], items: Items, device: str
) -> None:
    """Find what cannot be run before everything is embedded, which may take long."""
    classes, labels = np.unique(np.asarray(items.labels, dtype=str), return_inverse=True)
    unseen = np.isin(classes, items.unseen) if items.unseen else None
    for spec in specs:
        if not spec.fixed:
            draw(spec, labels.astype(np.int64), splits=items.splits, names=classes.tolist(), unseen=unseen)
    for strategy in (s for s in strategies if "text" in s.needs):
        for name in encoders:
            if "text" not in load_encoder(name, device).modalities:
                raise MissingInput(f"strategy {strategy.name!r} needs phrases, but encoder {name!r} takes no text")


def of_splits(items: Items, specs: Sequence[EpisodeSpec]) -> Items:
    """Keep the items of the splits that the specs name, or the first `each`, so that nothing is embedded in vain."""
    if items.fixed:
        return items
    splits = items.splits or ("",) * len(items.labels)
    named = {split for spec in specs for split in (*spec.split.split(">"), spec.source) if split}
    if not all(spec.split for spec in specs) or not named <= set(splits):
        named = set(splits)  # all are wanted, or a wrong name is reported when episodes are drawn
    most = max(spec.each for spec in specs) if all(spec.each for spec in specs) else len(splits)
    met: Counter[tuple[str, str]] = Counter()
    kept = []
    for i, group in enumerate(zip(splits, items.labels, strict=True)):
        if group[0] in named and met[group] < most:
            kept.append(i)
            met[group] += 1
    if len(kept) == len(splits):
        return items
    return dataclasses.replace(
        items,
        sources=tuple(items.sources[i] for i in kept) if items.sources else (),
        labels=tuple(items.labels[i] for i in kept),
        splits=tuple(items.splits[i] for i in kept) if items.splits else (),
        features=None if items.features is None else items.features[kept],
        text=None if items.text is None else _text_of(items, kept),
    )


def _text_of(items: Items, kept: Sequence[int]) -> NDArray[np.float32]:
    """Embedded phrases of the classes that are left."""
    left = {items.labels[i] for i in kept}
    assert items.text is not None
    return items.text[[c in left for c in items.classes]]


def embedded(
    title: str, items: Items, encoders: Sequence[str], device: str, cache: Path | None, say: Say
) -> Iterator[tuple[Features, Encoder | None]]:
    """Embed the items with one encoder after the other; features that are there already come once, without one."""
    for name in encoders if items.features is None else encoders[:1]:
        encoder = load_encoder(name, device) if items.features is None else None
        features, notes = embed_items(title, items, encoder, cache=cache, progress=True)
        for note in notes[:5]:
            say(note)
        if len(notes) > 5:
            say(f"... and {len(notes) - 5} more that could not be read")
        yield features, encoder


def data_title(dataset: str, path: Path | None) -> str:
    """Name of the data in tables: that of the file or folder where it is the user's own, of the folder of an index."""
    if path is None or dataset not in ("folder", "table", "npz"):
        return dataset
    return path.absolute().parent.name if dataset == "table" and path.stem == "index" else path.stem


def data_titles(runs: Sequence[Run]) -> list[str]:
    """Name the data of each run; by its path where one name would stand for several."""
    titles = [data_title(run.dataset, run.path) for run in runs]
    places: dict[str, set[tuple[str, Path | None]]] = {}
    for run, title in zip(runs, titles, strict=True):
        places.setdefault(title, set()).add((run.dataset, run.path))
    return [t if len(places[t]) == 1 else str(run.path or t) for run, t in zip(runs, titles, strict=True)]


def _drawn(run: Run, features: Features, strategies: Sequence[Strategy], given: Path | None) -> Iterator[Episodes]:
    """Episodes of each spec; where a strategy adapts to the queries, of a Dirichlet marginal too."""
    if given is not None:
        yield load_episodes(given, data=features.data)
        return
    wanted = list(run.specs)
    if any(s.transductive for s in strategies):
        uneven = [s for s in run.specs if s.marginal == "balanced" and not s.fixed]
        wanted += [dataclasses.replace(s, marginal="dirichlet") for s in uneven]
    for spec in dict.fromkeys(wanted):
        yield draw_from(features, spec)


def _save(folder: Path, features: Features, episodes: Episodes) -> None:
    """Write episodes under a name made of the data, the task and the checksum; the same ones are written once."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = episodes.spec.to_dict()
    name = features.name.strip("/").replace("/", "_")  # may be a path
    file = folder / f"{name}-{task_name(spec)}-{spec['marginal']}-{episodes.checksum()[:8]}.npz"
    if not file.exists():
        save_episodes_file(file, episodes)


def draw_from(features: Features, spec: EpisodeSpec) -> Episodes:
    """Draw episodes from features, or take the data's own when the spec says `fixed`."""
    if spec.fixed:
        return fixed_episodes(spec, features.labels, features.fixed, features.splits)
    return draw(spec, features.labels, splits=features.splits, names=features.classes, unseen=features.unseen)


def _cell(
    strategy: Strategy,
    run: Run,
    features: Features,
    encoder: Encoder | None,
    items: Items,
    episodes: Episodes,
    device: torch.device,
    kept: Journal,
    progress: Callable[[str, int, int], None] | None,
) -> Result:
    key = cell_key(strategy, features, episodes, device, calibrate=run.calibrate)
    if key in kept.done:
        return kept.done[key]
    title = f"{features.name} {strategy.name}"
    total = len(episodes)
    shown = (lambda done: progress(title, done, total)) if progress else None
    if progress:
        progress(title, 0, total)
    told = phrased(strategy, features, encoder, items)
    result = evaluate(strategy, told, episodes, device=device, calibrate=run.calibrate, progress=shown)
    kept.add(key, result)
    return result


def phrased(strategy: Strategy, features: Features, encoder: Encoder | None, items: Items) -> Features:
    """Put a strategy's own phrases in place of the usual ones."""
    names = [items.phrases.get(c, (spoken(c),))[0] for c in features.classes]
    own = strategy.phrases(names) if encoder is not None and "text" in encoder.modalities else None
    if own is None or encoder is None:
        return features
    text, weight = embed_phrases(encoder, own)
    return dataclasses.replace(features, text=text, text_weight=weight)


def cell_key(
    strategy: Strategy, features: Features, episodes: Episodes, device: torch.device, *, calibrate: bool = False
) -> str:
    """Hash of everything a result depends on."""
    digest = hashlib.sha256(np.ascontiguousarray(features.x.numpy()).tobytes())
    what = [
        strategy.name,
        to_json(strategy),
        features.name,
        features.encoder,
        features.fingerprint,
        features.data,
        list(features.classes),
        episodes.spec.to_dict(),
        episodes.checksum(),
        str(device),
        versions(),
        calibrate,
    ]
    digest.update(json.dumps(what, sort_keys=True).encode())
    for tensor in (features.text, features.text_weight, features.attributes):
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
