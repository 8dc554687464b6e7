"""Choose stage, window and `dn4` options for Omniglot's one-shot challenge without looking at the challenge.

python benchmarks/omniglot_choice.py [--runs 40] [--json benchmarks/results/omniglot_choice.json]

Runs like those of the challenge are made from the 30 background alphabets, none of which is in the challenge: 20
characters of one alphabet, one drawing each by one drawer as support, by another as queries. Every candidate meets the
same runs; the most accurate one is what benchmarks/suites/omniglot.toml then tries on the challenge.
"""

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.bench import draw_from
from fewshot.datasets.omniglot import read_zip
from fewshot.encoders import lite_image
from fewshot.encoders.lite_stage import SIDES, WINDOW
from fewshot.episodes import EpisodeSpec
from fewshot.evaluate import evaluate
from fewshot.features import Features, make_features
from fewshot.images import open_image
from fewshot.options import build
from fewshot.provenance import versions
from fewshot.registry import registry

CHARACTERS, DRAWERS, BATCH = 20, 20, 32
WINDOWS = (1, WINDOW, 5)
DRIFTS = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.04)


def draw_runs(files: dict[str, bytes], runs: int, seed: int) -> tuple[list[bytes], list[str]]:
    """Drawings and characters of every run: 20 of support, then 20 queries."""
    by_drawer: dict[tuple[str, str, int], bytes] = {}
    for name, content in files.items():
        _, alphabet, character, drawing = name.removesuffix(".png").split("/")
        by_drawer[alphabet, character, int(drawing.rpartition("_")[2])] = content
    characters: dict[str, list[str]] = {}
    for alphabet, character, drawer in sorted(by_drawer):
        if drawer == 1:
            characters.setdefault(alphabet, []).append(character)
    alphabets = [a for a, found in characters.items() if len(found) >= CHARACTERS]
    rng = np.random.default_rng(seed)
    drawings, labels = [], []
    for run in range(runs):
        alphabet = alphabets[rng.integers(len(alphabets))]
        chosen = rng.permutation(characters[alphabet])[:CHARACTERS]
        for drawer in 1 + rng.permutation(DRAWERS)[:2]:
            drawings += [by_drawer[alphabet, str(c), int(drawer)] for c in chosen]
            labels += [f"{run:03} {alphabet}/{c}" for c in chosen]
    return drawings, labels


def stage_maps(drawings: list[bytes], stage: int) -> Tensor:
    """Maps of a stage for every drawing.  -> [n, channels, side, side]"""
    network = lite_image.load(torch.device("cpu"))
    prepared = (lite_image.prepare(open_image(drawing)) for drawing in drawings)
    parts = []
    while batch := list(itertools.islice(prepared, BATCH)):
        parts.append(network.maps(torch.stack(batch), stage).contiguous())
    return torch.cat(parts)


def candidates(side: int) -> Iterator[tuple[str, dict[str, object]]]:
    """Strategies to try on maps of side x side places."""
    yield "simpleshot", {}
    yield from (("dn4", {"side": side, "drift": drift}) for drift in DRIFTS)


def accuracies(drawings: list[bytes], labels: list[str], stages: list[int]) -> list[dict[str, object]]:
    """Mean accuracy of every candidate."""
    starts = range(0, len(labels), 2 * CHARACTERS)
    sides = [(range(a, a + CHARACTERS), range(a + CHARACTERS, a + 2 * CHARACTERS)) for a in starts]
    fixed = tuple((tuple(support), tuple(query)) for support, query in sides)
    found = []
    for stage in stages:
        maps = stage_maps(drawings, stage)
        for window in WINDOWS:
            x = F.avg_pool2d(maps, window, stride=1).flatten(1)  # [n, D], as `lite:stageN` makes with WINDOW
            features = make_features("omniglot_background", x, labels, fixed=fixed)
            for name, options in candidates(SIDES[stage] - window + 1):
                found.append({"stage": stage, "window": window, "strategy": name, "options": options})
                found[-1] |= measured(name, options, features)
                print(found[-1], flush=True)
    return found


def measured(name: str, options: dict[str, object], features: Features) -> dict[str, object]:
    result = evaluate(build(registry().strategy(name), options), features, draw_from(features, EpisodeSpec(fixed=True)))
    accuracy = result.metrics["accuracy"]
    return {"accuracy": round(accuracy.mean, 5), "half_width": round(accuracy.half_width, 5), "runs": accuracy.n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", type=int, nargs="+", default=list(SIDES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ.get("FEWSHOT_DATA", Path(__file__).parent / ".." / ".." / "shared" / "data"))
    files = {k: v for k, v in read_zip(data / "omniglot" / "images_background.zip").items() if k.endswith(".png")}
    drawings, labels = draw_runs(files, options.runs, options.seed)
    with torch.inference_mode():
        found = accuracies(drawings, labels, options.stages)
    best = max(found, key=lambda row: float(str(row["accuracy"])))
    fitting = max((r for r in found if r["window"] == WINDOW), key=lambda row: float(str(row["accuracy"])))
    text = {
        "what": "20-way one-shot within an alphabet of images_background; none is in the challenge",
        "seed": options.seed,
        "versions": versions(),
        "best": best,
        "best_of_the_encoders_window": fitting,
        "candidates": found,
    }
    print(best, fitting, sep="\n")
    if options.json:
        options.json.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
