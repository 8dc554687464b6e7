"""Accuracy of every strategy on five sets of real pictures: the table of results/accuracy.md.

Every class at once, support drawn at random, queries the test split (the rest where the data has none), phrases the
class names in the encoder's own templates. Random draws fit closed-form strategies 100 times, slower ones fewer (`n`
says how many); results/accuracy_thousand.md has 1,000 draws of `auto` and its members where these take little time. An
interrupted run goes on where it stopped.

    python benchmarks/accuracy.py --data DATA --cache CACHE --out benchmarks/results/accuracy
    python benchmarks/accuracy.py --data DATA --cache CACHE --draws 1000 \
        --sets clothing_small grocery_fruit sign_digits --strategies auto zero_shot prototypical ridge gda \
        --out benchmarks/results/accuracy_thousand
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from fewshot.bench import Journal, cell_key, draw_from, of_splits, phrased
from fewshot.datasets import Items
from fewshot.embed_items import embed_items
from fewshot.encoders import Encoder, load_encoder
from fewshot.episodes import Episodes, EpisodeSpec
from fewshot.errors import DataError
from fewshot.evaluate import evaluate
from fewshot.features import Features
from fewshot.provenance import versions
from fewshot.registry import registry
from fewshot.report import Result
from fewshot.strategy import Strategy

SHOTS = (1, 2, 4, 8, 16)
MEMBERS = ("zero_shot", "prototypical", "ridge", "gda")  # what auto is made of


@dataclass(frozen=True)
class Source:
    """A data set, where it lies in the data folder, and where support and queries come from."""

    dataset: str
    path: str
    split: str
    slow: bool = False  # many classes or queries: fewer draws for the strategies that take long


SOURCES = {
    "caltech101": Source("caltech101", "caltech101", "train16_seed1>test", slow=True),
    "clothing_small": Source("table", "clothing_small/index.csv", "train>test"),
    "grocery_fruit": Source("grocery_fruit", "grocery_fruit", "train>test"),
    "cifar_fs": Source("cifar_fs", "cifar_fs", "test", slow=True),
    "sign_digits": Source("table", "sign_digits/index.csv", ""),
}


def load(name: str, data: Path, cache: Path, encoder: Encoder) -> tuple[Features, Items]:
    """Embeddings of the items of the splits that are used, and of the names of their classes."""
    source = SOURCES[name]
    items = registry().dataset(source.dataset)().load(data / source.path)
    items = of_splits(dataclasses.replace(items, phrases={}), [EpisodeSpec(split=source.split)])
    features, notes = embed_items(name, items, encoder, cache=cache, progress=True)
    for note in notes:
        print(note, file=sys.stderr)
    return features, items


def draws(strategy: Strategy, source: Source, features: Features, shots: int, most: int) -> int:
    """How many draws a strategy gets: one when a split holds just so many items, fewer when it takes long."""
    support, _, query = source.split.partition(">")
    if query and (np.bincount(features.labels[np.asarray(features.splits) == support]) == shots).all():
        return 1
    if strategy.speed == "closed-form" and not strategy.transductive:
        return most
    part = 4 if strategy.speed == "iterative" and not strategy.transductive else 10
    return max(1, most // (2 * part if source.slow else part))


def first(episodes: Episodes, count: int) -> Episodes:
    """The first episodes of those drawn, so that strategies with fewer draws meet the same ones as the others."""
    drawn = ("classes", "support", "support_labels", "query", "query_labels", "unlabeled")
    return dataclasses.replace(episodes, **{name: getattr(episodes, name)[:count] for name in drawn})


def usable(features: Features) -> Iterator[Strategy]:
    """Strategies that this data has what it takes for, in order of name."""
    absent = {"attributes", "source"}
    for name in sorted(registry().strategies):
        cls = registry().strategy(name)
        if not cls.needs & absent and (features.text.shape[1] or "text" not in cls.needs):
            yield cls()


def cell(strategy: Strategy, features: Features, episodes: Episodes, journal: Journal) -> Result:
    key = cell_key(strategy, features, episodes, torch.device("cpu"))
    if key not in journal.done:
        journal.add(key, evaluate(strategy, features, episodes, block=10))
    return journal.done[key]


def run(given: argparse.Namespace) -> dict[str, object]:
    """Fill the table, cell by cell."""
    encoder, journal = load_encoder(given.encoder), Journal(given.out.with_suffix(".journal"))
    cells, missing = [], []
    for name in given.sets:
        (features, items), drawn = load(name, given.data, given.cache, encoder), {}
        for strategy in usable(features):
            own = phrased(strategy, features, encoder, items)
            if given.strategies and strategy.name not in given.strategies:
                continue
            for shots in given.shots:
                n = draws(strategy, SOURCES[name], features, shots, given.draws)
                try:
                    if shots not in drawn:
                        drawn[shots] = draw_from(features, spec_of(name, shots, given))
                    result = cell(strategy, own, first(drawn[shots], n), journal)
                except DataError as error:
                    missing.append(f"{name}, {shots} shots: {error}")
                    continue
                cells.append(row(name, shots, result))
                print(
                    f"{name:15s} {shots:2d} {strategy.name:18s} {text_of(cells[-1])} {result.cost.seconds:.1f} s",
                    flush=True,
                )
    return {
        "command": " ".join(["python benchmarks/accuracy.py --data DATA --cache CACHE", *chosen(given), "--out OUT"]),
        "encoder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "device": "cpu",
        "versions": versions(),
        "seed": given.seed,
        "labels_used": "support labels; no validation and no test labels",
        "left_out": sorted(set(missing)),
        "cells": cells,
    }


def chosen(given: argparse.Namespace) -> list[str]:
    """The options that say what the table is of."""
    sets = [] if given.sets == list(SOURCES) else ["--sets", *given.sets]
    strategies = ["--strategies", *given.strategies] if given.strategies else []
    return [f"--encoder {given.encoder} --draws {given.draws} --seed {given.seed}", *sets, *strategies]


def spec_of(name: str, shots: int, given: argparse.Namespace) -> EpisodeSpec:
    split = SOURCES[name].split
    return EpisodeSpec(way=0, shot=shots, query=0, episodes=given.draws, seed=given.seed, split=split)


def row(name: str, shots: int, result: Result) -> dict[str, object]:
    accuracy, kept = result.metrics["accuracy"], ("spec", "episodes", "options")
    found = {"dataset": name, "shots": shots, "strategy": result.strategy, "transductive": result.transductive}
    cost = {"seconds": round(result.cost.seconds, 3)}
    calibration = {m: result.metrics[m].mean for m in ("nll", "ece") if m in result.metrics}
    return found | asdict(accuracy) | calibration | cost | {k: v for k, v in asdict(result).items() if k in kept}


def text_of(found: dict[str, object]) -> str:
    half = found["half_width"]
    shown = f" ± {100 * half:.1f}" if isinstance(half, float) and half == half else ""
    return f"{100 * found['mean']:.1f}{shown}"


def table_text(result: dict[str, object]) -> str:
    """The result as Markdown: one table a data set, then the averages and what the issue of `auto` asks."""
    cells = {(c["dataset"], c["strategy"], c["shots"]): c for c in result["cells"]}
    sets, shots = list(dict.fromkeys(c[0] for c in cells)), sorted({c[2] for c in cells})
    strategies = sorted({c[1] for c in cells})
    lines = ["# Accuracy on real pictures", "", " ".join((__doc__ or "").split("\n\n")[1].split())]
    lines += [
        "",
        f"Encoder `{result['encoder']}`, seed {result['seed']}, {result['device']}, versions {result['versions']}.",
        "",
    ]
    lines += [
        "Mean accuracy in %, with the 95 % half width over draws (none for a single draw), and n draws. Labels used: "
    ]
    lines[-1] += (
        f"{result['labels_used']}. T: transductive, sees the queries unlabelled. Made by `{result['command']}`."
    )
    for name in sets:
        lines += ["", f"## {name}", "", "| strategy | " + " | ".join(f"{k} shots" for k in shots) + " |"]
        lines += ["|---" * (len(shots) + 1) + "|"]
        for strategy in strategies:
            found = [cells.get((name, strategy, k)) for k in shots]
            mark = " (T)" if any(c and c["transductive"] for c in found) else ""
            shown = [f"{text_of(c)} ({c['n']})" if c else "" for c in found]
            lines.append(f"| {strategy}{mark} | " + " | ".join(shown) + " |")
    lines += ["", *averages(cells, sets, shots, strategies)]
    lines += ["", "Left out: " + "; ".join(result["left_out"])] if result["left_out"] else []
    return "\n".join(lines) + "\n"


def averages(cells: dict, sets: list[str], shots: list[int], strategies: list[str]) -> list[str]:
    """Mean of each strategy over all cells, and `auto` against the best member in each cell."""
    places = [(name, k) for name in sets for k in shots if (name, "auto", k) in cells]
    means = {}
    for strategy in strategies:
        found = [cells[name, strategy, k]["mean"] for name, k in places if (name, strategy, k) in cells]
        if places and len(found) == len(places):
            means[strategy] = 100 * float(np.mean(found))
    lines = ["## Averages over all cells", "", "| strategy | mean |", "|---|---|"]
    lines += [f"| {s} | {m:.2f} |" for s, m in sorted(means.items(), key=lambda pair: -pair[1])]
    lines += [
        "",
        "## auto less its best single member, in points",
        "",
        "| data | " + " | ".join(map(str, shots)) + " |",
    ]
    lines += ["|---" * (len(shots) + 1) + "|"]
    for name in sets:
        gaps = []
        for k in shots:
            best = [cells[name, m, k]["mean"] for m in MEMBERS if (name, m, k) in cells]
            gaps.append(
                f"{100 * (cells[name, 'auto', k]['mean'] - max(best)):+.1f}" if (name, k) in places and best else ""
            )
        lines.append(f"| {name} | " + " | ".join(gaps) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the five data sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps embeddings")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS))
    parser.add_argument("--sets", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--strategies", nargs="+", default=[], help="all when none is named")
    parser.add_argument("--out", type=Path, required=True, help="path without ending; writes .json and .md")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    result = run(given)
    given.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    given.out.with_suffix(".md").write_text(table_text(result))


if __name__ == "__main__":
    main()
