"""The whole path of `fewshot bench` against easyfsl's own evaluation loop, side by side in one process.

python benchmarks/speed_bench.py [--rounds 5] [--episodes 10000] [--json benchmarks/results/speed_bench.json]

Data: 100 classes x 600 random 512-d features; episodes are 5-way with 15 queries a class. Ours draws 10,000 episodes,
gathers, fits, scores, and computes every metric with its interval; easyfsl samples, collates, fits, and counts right
answers. Rounds alternate; the ratio of a round compares neighbours in time, and the median over rounds is reported.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Sampler

from fewshot.drawing import draw
from fewshot.episodes import EpisodeSpec
from fewshot.evaluate import evaluate
from fewshot.features import Features, make_features
from fewshot.provenance import peak_mb, versions
from fewshot.registry import registry

CLASSES, EACH, DIM, WAY, QUERY = 100, 600, 512, 5, 15
THEIR_EPISODES = 600


def make_data() -> Features:
    generator = torch.Generator().manual_seed(0)
    centre = 0.2 * torch.randn(CLASSES, DIM, generator=generator)
    x = centre.repeat_interleave(EACH, 0) + torch.randn(CLASSES * EACH, DIM, generator=generator)
    return make_features("random", x, [f"c{i:03}" for i in range(CLASSES) for _ in range(EACH)])


def ours(data: Features, shot: int, episodes: int, seed: int) -> tuple[float, float]:
    begin = time.perf_counter()
    drawn = draw(EpisodeSpec(way=WAY, shot=shot, query=QUERY, episodes=episodes, seed=seed), data.labels)
    result = evaluate(registry().strategy("prototypical")(), data, drawn)
    return episodes / (time.perf_counter() - begin), result.metrics["accuracy"].mean


def theirs(data: Features, shot: int) -> tuple[float, float]:
    from easyfsl.datasets import FeaturesDataset
    from easyfsl.methods import PrototypicalNetworks
    from easyfsl.samplers import TaskSampler
    from easyfsl.utils import evaluate as easy_evaluate

    bank = FeaturesDataset(data.labels.tolist(), data.x, list(data.classes))
    begin = time.perf_counter()
    sampler = TaskSampler(bank, WAY, shot, QUERY, THEIR_EPISODES)
    loader = DataLoader(bank, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)
    accuracy = easy_evaluate(PrototypicalNetworks(), loader, device="cpu", use_tqdm=False)
    return THEIR_EPISODES / (time.perf_counter() - begin), accuracy


def measure(data: Features, shot: int, rounds: int, episodes: int) -> dict[str, object]:
    ours(data, shot, 200, 0), theirs(data, shot)  # warm up
    pairs = [(theirs(data, shot), ours(data, shot, episodes, seed)) for seed in range(rounds)]
    ratios = [mine[0] / other[0] for other, mine in pairs]
    return {
        "shot": shot,
        "easyfsl_per_second": round(statistics.median(other[0] for other, _ in pairs), 1),
        "fewshot_per_second": round(statistics.median(mine[0] for _, mine in pairs), 1),
        "fewshot_seconds": round(statistics.median(episodes / mine[0] for _, mine in pairs), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(r, 2) for r in ratios],
        "easyfsl_accuracy": round(statistics.mean(other[1] for other, _ in pairs), 4),
        "fewshot_accuracy": round(statistics.mean(mine[1] for _, mine in pairs), 4),
    }


def table(found: dict[str, object]) -> str:
    """The measurement as Markdown."""
    lines = ["# The whole path of `fewshot bench` against easyfsl's evaluation loop", ""]
    lines += [f"{found['what']}; {found['threads']} threads, versions {found['versions']}.", ""]
    lines += [
        "Made by `python benchmarks/speed_bench.py --json benchmarks/results/speed_bench.json` on a machine without"
    ]
    lines += ["other work; medians over alternating rounds.", ""]
    lines += [
        "| shots | easyfsl, episodes/s | fewshot, episodes/s | ratio | of each round | 10,000 episodes |",
        "|---" * 6 + "|",
    ]
    for row in found["results"]:
        rounds = ", ".join(map(str, row["ratios"]))
        seconds = 10_000 / row["fewshot_per_second"]
        cells = [row["shot"], row["easyfsl_per_second"], row["fewshot_per_second"], row["ratio"], rounds]
        lines.append("| " + " | ".join(map(str, cells)) + f" | {seconds:.2f} s |")
    return "\n".join([*lines, "", f"Peak memory of the process, both sides together: {found['peak_mb']} MB.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # easyfsl 1.5 passes data_source to Sampler.__init__, which newer versions of torch no longer take.
    Sampler.__init__ = lambda *_, **__: None
    data = make_data()
    found = {
        "what": "episodes a second, prototypical, 5-way, 15 queries a class, 512-d features",
        "episodes": options.episodes,
        "threads": torch.get_num_threads(),
        "load": [round(v, 2) for v in os.getloadavg()],
        "versions": versions(),
        "results": [measure(data, shot, options.rounds, options.episodes) for shot in (1, 5)],
        "peak_mb": round(peak_mb(torch.device("cpu"))),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
        options.json.with_suffix(".md").write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
