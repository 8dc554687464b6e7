"""Constants of the strategies whose papers tune them on a validation set: the defaults against the paper's.

Support and queries are drawn from the training splits alone (sign_digits has no splits), every class at once, phrases
the class names; transductive strategies see the queries unlabelled. So the choice of a default looks at no item that
accuracy.py measures, but for sign_digits. An interrupted run goes on where it stopped.

    python benchmarks/constants.py --data DATA --cache CACHE --out benchmarks/results/constants
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import load

from fewshot.bench import Journal, cell_key, draw_from
from fewshot.encoders import load_encoder
from fewshot.episodes import EpisodeSpec
from fewshot.errors import DataError
from fewshot.evaluate import evaluate
from fewshot.options import build
from fewshot.provenance import versions
from fewshot.registry import registry

SPLITS = {"caltech101": "train16_seed1", "clothing_small": "train", "grocery_fruit": "train", "sign_digits": ""}
SHOTS, SEED = (1, 2, 4, 8), 1
FIXED = 1e9  # a pull that holds gda's factors at 1

TRIED: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "tip_adapter": [("leave-one-out (default)", {}), ("the paper's 1 and 5.5", {"alpha": 1.0, "beta": 5.5})],
    "tip_adapter_f": [("leave-one-out (default)", {}), ("the paper's 1 and 5.5", {"alpha": 1.0, "beta": 5.5})],
    "ape": [
        ("leave-one-out, keep 0.8 (default)", {}),
        ("leave-one-out, the paper's shares", {"keep": 0.5, "similarity": 0.7, "gamma": 0.1}),
        ("1 and 5.5, keep 0.8", {"alpha": 1.0, "beta": 5.5}),
    ],
    "gda": [("held-out factors (default)", {}), ("factors of 1", {"pull": FIXED})],
    "linear_probe": [
        ("C = 30 (default)", {}),
        ("C by cross-validation", {"folds": 5}),
        ("C = 0.316, CLIP's for ImageNet", {"c": 0.316}),
    ],
    "cross_modal": [
        ("rate 1e-3, decay 0.01 (default)", {}),
        ("rate 1e-4", {"rate": 1e-4}),
        ("no decay", {"decay": 0.0}),
    ],
    "laplacian_shot": [
        ("lambda 0.7 (default)", {}),
        *((f"lambda {value:g}", {"pairwise": value}) for value in (0.1, 0.3, 1.0)),
    ],
    "transclip": [
        ("gamma 0.2 (default)", {}),
        *((f"gamma {value:g}", {"gamma": value}) for value in (0.002, 0.01, 0.02)),
    ],
    "em_dirichlet": [
        ("T 30, the paper's (default)", {}),
        *((f"T {value:g}", {"temperature": value}) for value in (15.0, 60.0, 200.0)),
    ],
}


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Measure every choice on the same episodes."""
    encoder, journal = load_encoder("lite"), Journal(given.out.with_suffix(".journal"))
    rows = []
    for dataset, split in SPLITS.items():
        features, _ = load(dataset, given.data, given.cache, encoder)
        for shot in SHOTS:
            spec = EpisodeSpec(way=0, shot=shot, query=0, episodes=given.draws, seed=SEED, split=split)
            try:
                episodes = draw_from(features, spec)
            except DataError:
                continue  # a class with too few items
            for name in given.strategies:
                for label, options in TRIED[name]:
                    strategy = build(registry().strategy(name), options)
                    key = cell_key(strategy, features, episodes, torch.device("cpu"))
                    if key not in journal.done:
                        journal.add(key, evaluate(strategy, features, episodes, block=5))
                    found = journal.done[key].metrics["accuracy"]
                    rows.append({"dataset": dataset, "shots": shot, "strategy": name, "choice": label})
                    rows[-1] |= {"options": options, "mean": found.mean, "half_width": found.half_width, "n": found.n}
                    print(f"{dataset:15} {shot:2} {name:15} {label:36} {100 * found.mean:5.1f}", flush=True)
    command = "python benchmarks/constants.py --data DATA --cache CACHE --out benchmarks/results/constants"
    about = {"command": f"{command} --draws {given.draws}", "seed": SEED, "fingerprint": encoder.fingerprint}
    return about | {"device": "cpu", "versions": versions(), "splits": SPLITS, "rows": rows}


def table(result: dict[str, Any]) -> str:
    """The means over data sets and shots, and each data set's over shots, as Markdown."""
    rows = result["rows"]
    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    lines = ["# Constants that papers tune on a validation set", ""]
    lines += [" ".join((__doc__ or "").split("\n\n")[1].split()), ""]
    lines += [f"Accuracy in %, mean over 1 to 8 shots, {rows[0]['n']} draws of each, seed {result['seed']}, encoder"]
    lines[-1] += f" `{result['fingerprint']}`. Made by `{result['command']}`."
    lines += ["", "| strategy | choice | " + " | ".join(sets) + " | mean |", "|---" * (len(sets) + 3) + "|"]
    for name, label in dict.fromkeys((row["strategy"], row["choice"]) for row in rows):
        own = [row for row in rows if (row["strategy"], row["choice"]) == (name, label)]
        means = [np.mean([row["mean"] for row in own if row["dataset"] == each]) for each in sets]
        cells = [*means, np.mean([row["mean"] for row in own])]
        lines.append(f"| {name} | {label} | " + " | ".join(f"{100 * cell:.1f}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps embeddings")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--strategies", nargs="+", default=list(TRIED), choices=list(TRIED))
    parser.add_argument("--out", type=Path, required=True, help="path without ending; writes .json and .md")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    result = run(given)
    given.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    given.out.with_suffix(".md").write_text(table(result))


if __name__ == "__main__":
    main()
