"""Accuracy of strategies and of easyfsl's methods on the very same exported episodes, with paired differences.

python benchmarks/same_episodes.py [--episodes 300] [--cache DIR] [--json benchmarks/results/same_episodes.json]

Episodes of CIFAR-FS's test classes in `lite` embeddings (5-way, 15 queries a class, 1 and 5 shots) are drawn, written
to a file and read back; both sides meet them with their own defaults, and again with options under which both follow
the same formula. easyfsl gets one episode at a time, a fresh method each. A difference whose interval does not hold 0
has its cause in the last column. A stopped run goes on.
"""

import argparse
import importlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.bench import draw_from, of_splits
from fewshot.embed_items import embed_items
from fewshot.encoders import load_encoder
from fewshot.episode_files import load_episodes, save_episodes
from fewshot.episodes import Episodes, EpisodeSpec
from fewshot.evaluate import evaluate
from fewshot.features import Features
from fewshot.metrics.interval import Estimate, mean_interval
from fewshot.options import build
from fewshot.provenance import versions
from fewshot.registry import registry


@dataclass(frozen=True)
class Pair:
    strategy: str
    peer: str
    options: dict[str, object] = field(default_factory=dict)
    peer_options: dict[str, object] = field(default_factory=dict)
    why: str = ""  # what the two do differently


GD = {"solver": "gd", "steps": 50, "rate": 1e-3, "guard": False}
CUT = "easyfsl's transform cuts negative features off; with the signed one it answers alike"
PAIRS = [
    Pair("prototypical", "PrototypicalNetworks"),
    Pair("simpleshot", "SimpleShot", why="easyfsl centres nothing by default; the paper subtracts a mean"),
    Pair("simpleshot", "SimpleShot", {}, {"feature_centering": "support", "feature_normalization": 2.0}),
    Pair("bd_cspn", "BDCSPN", why="easyfsl has no factor on the cosines and leaves the queries unshifted"),
    Pair(
        "bd_cspn", "BDCSPN", {"sharpness": 1.0, "guard": False}, why="easyfsl leaves the queries themselves unshifted"
    ),
    Pair(
        "laplacian_shot",
        "LaplacianShot",
        why="easyfsl counts an item as its own nearest neighbour, so that its 3 are 2",
    ),
    Pair("laplacian_shot", "LaplacianShot", {"sharpness": 1.0, "guard": False}, {"knn": 4}),
    Pair("tim", "TIM", why="easyfsl takes 50 steps of 1e-4 (paper: 1000) with other weights, and hardly moves"),
    Pair(
        "tim",
        "TIM",
        GD,
        {"temperature": 15.0, "cross_entropy_weight": 0.1, "fine_tuning_lr": 1e-3},
        "easyfsl scores by cosine, the paper by distance",
    ),
    Pair("pt_map", "PTMAP", why=CUT),
    Pair("pt_map", "PTMAP", {"power": 0.5, "center": False, "guard": False}, {"fine_tuning_steps": 20}, CUT),
]


def load(data: Path, cache: Path | None) -> Features:
    items = of_splits(registry().dataset("cifar_fs")().load(data / "cifar_fs"), [EpisodeSpec(split="test")])
    return embed_items("cifar_fs", items, load_encoder("lite", "cpu"), cache=cache)[0]


def exported(features: Features, shot: int, number: int) -> Episodes:
    """Draw episodes, and return what somebody else would read from the file."""
    drawn = draw_from(features, EpisodeSpec(shot=shot, query=15, episodes=number, split="test"))
    with tempfile.TemporaryDirectory() as folder:
        save_episodes(Path(folder) / "episodes.npz", drawn)
        return load_episodes(Path(folder) / "episodes.npz", data=features.data)


def theirs(pair: Pair, features: Features, episodes: Episodes) -> NDArray[np.float64]:
    """Accuracy of easyfsl in each episode.  -> [E]"""
    method, found = getattr(importlib.import_module("easyfsl.methods"), pair.peer), []
    for i in range(len(episodes)):
        support, query = (features.x[torch.from_numpy(rows[i]).long()] for rows in (episodes.support, episodes.query))
        options = dict(pair.peer_options)
        if "feature_centering" in options:
            options["feature_centering"] = support.mean(0)
        model = method(torch.nn.Identity(), **options)
        with torch.no_grad():
            model.process_support_set(support, torch.from_numpy(episodes.support_labels[i]).long())
            answer = model(query).argmax(-1)
        found.append(float((answer.numpy() == episodes.query_labels[i]).mean()))
    return np.array(found)


def compare(pair: Pair, features: Features, episodes: Episodes, shot: int) -> dict[str, object]:
    mine = evaluate(build(registry().strategy(pair.strategy), pair.options), features, episodes)
    other = theirs(pair, features, episodes)
    gap = mean_interval(np.array(mine.accuracies) - other)
    equal = abs(gap.mean) <= gap.half_width
    row: dict[str, object] = {"strategy": pair.strategy, "options": pair.options, "peer": f"easyfsl {pair.peer}"}
    row |= {"peer_options": pair.peer_options, "shot": shot, "episodes": len(episodes)}
    row |= {"fewshot": shown(mine.metrics["accuracy"]), "easyfsl": shown(mean_interval(other))}
    row |= {"difference": shown(gap), "equal": bool(equal), "why": "" if equal else pair.why}
    print(row, flush=True)
    return row


def shown(value: Estimate) -> list[float]:
    """Mean and half width in per cent."""
    return [round(100 * value.mean, 2), round(100 * value.half_width, 2)]


def table(found: dict[str, object]) -> str:
    lines = ["# The same episodes for fewshot and easyfsl", "", " ".join((__doc__ or "").split("\n\n")[2].split()), ""]
    lines += [
        "Accuracy in %, mean with 95 % half width; the difference is paired. Made by `benchmarks/same_episodes.py`."
    ]
    lines += ["", "| strategy | shots | fewshot | easyfsl | difference | equal | why not |", "|---" * 7 + "|"]
    for row in found["results"]:
        options = ", ".join(f"{k}={v}" for k, v in {**row["options"], **row["peer_options"]}.items())
        cells = [f"{a:.2f} ± {b:.2f}" for a, b in (row["fewshot"], row["easyfsl"], row["difference"])]
        name = f"`{row['strategy']}`" + (f" ({options})" if options else "")
        lines.append(
            f"| {name} | {row['shot']} | {' | '.join(cells)} | {'yes' if row['equal'] else 'no'} | {row['why']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    features = load(Path(os.environ.get("FEWSHOT_DATA", Path(__file__).parents[2] / "shared" / "data")), options.cache)
    found: dict[str, object] = {
        "encoder": features.encoder,
        "fingerprint": features.fingerprint,
        "versions": versions(),
    }
    rows = known(options.json, found)
    for shot in (1, 5):
        episodes = exported(features, shot, options.episodes)
        for pair in PAIRS:
            if title(pair, shot, options.episodes) not in rows:
                rows[title(pair, shot, options.episodes)] = compare(pair, features, episodes, shot)
                save(options.json, found, rows)


def title(pair: Pair, shot: int, episodes: int) -> str:
    """Name a row, so that a stopped run goes on."""
    return json.dumps([pair.strategy, pair.options, pair.peer_options, shot, episodes])


def known(file: Path | None, wanted: dict[str, object]) -> dict[str, dict[str, object]]:
    """Rows of a file that the same encoder and versions made."""
    found = json.loads(file.read_text(encoding="utf-8")) if file is not None and file.exists() else {}
    rows = found.pop("results", []) if found else []
    if found != wanted:
        return {}
    names = ("strategy", "options", "peer_options", "shot", "episodes")
    return {json.dumps([row[name] for name in names]): row for row in rows}


def save(file: Path | None, found: dict[str, object], rows: dict[str, dict[str, object]]) -> None:
    if file is not None:
        whole = {**found, "results": list(rows.values())}
        file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        file.with_suffix(".md").write_text(table(whole), encoding="utf-8")


if __name__ == "__main__":
    main()
