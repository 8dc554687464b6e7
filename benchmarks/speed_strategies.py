"""Episodes a second of strategies and of their peers, side by side in one process, on precomputed features.

python benchmarks/speed_strategies.py [--rounds 5] [--only prototypical,tim] [--clock wall] [--out PATH]

Data: 100 classes x 600 random 512-d features; 5-way, 15 queries a class, 1 and 5 shots. A run draws its episodes,
gathers their rows, fits, scores and counts right answers: ours in batches that suit the strategy, easyfsl in its own
evaluation loop, scikit-learn in a plain loop over episodes drawn beforehand. Runs of ours and theirs alternate; each
ratio compares neighbours in time, and medians over the rounds are reported. `--clock cpu` counts processor time, for a
machine that others use too. To add a strategy, add a row to ROWS.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from fewshot import LinearHead, Task
from fewshot.drawing import draw
from fewshot.episodes import Episodes, EpisodeSpec
from fewshot.evaluate import Solver, blocks
from fewshot.features import Features, make_features
from fewshot.options import build
from fewshot.provenance import versions
from fewshot.registry import registry

CLASSES, EACH, DIM, WAY, QUERY, SHOTS, SEED = 100, 600, 512, 5, 15, (1, 5), 0


NEWLINE = "\n"
STEPS = ("gather", "fit", "score", "count")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS["wall"]


@dataclass(frozen=True)
class Row:
    strategy: str
    peer: str  # a class of easyfsl.methods, or "LogisticRegression" for scikit-learn's
    episodes: int  # of ours in a run
    peer_episodes: int
    goal: float  # the ratio wanted
    options: dict[str, object] = field(default_factory=dict)
    batch: int = 32  # episodes of ours at a time: more where much is computed on few numbers


# What easyfsl's TIM does: Adam for 50 steps. Ours, by default, is the paper's other solver: 60 rounds of closed forms.
EASYFSL_TIM = {"solver": "gd", "steps": 50, "cross_entropy": 1.0, "temperature": 10.0}

ROWS = [
    Row("prototypical", "PrototypicalNetworks", 6000, 300, 20),
    Row("simpleshot", "SimpleShot", 6000, 300, 20),
    Row("bd_cspn", "BDCSPN", 1024, 60, 13),
    Row("laplacian_shot", "LaplacianShot", 512, 40, 9),
    Row("pt_map", "PTMAP", 512, 20, 18, batch=128),
    Row("pt_map", "PTMAP", 512, 20, 18, {"power": 0.5}, batch=128),
    Row("tim", "TIM", 256, 4, 35, batch=128),
    Row("tim", "TIM", 128, 4, 35, EASYFSL_TIM),
    Row("linear_probe", "LogisticRegression", 2000, 100, 25, {"c": 1.0}, batch=128),
]


def make_data() -> Features:
    generator = torch.Generator().manual_seed(SEED)
    centre = 0.2 * torch.randn(CLASSES, DIM, generator=generator)
    x = centre.repeat_interleave(EACH, 0) + torch.randn(CLASSES * EACH, DIM, generator=generator)
    return make_features("random", x, [f"c{i:03}" for i in range(CLASSES) for _ in range(EACH)])


def drawn(data: Features, shot: int, episodes: int, seed: int) -> Episodes:
    return draw(EpisodeSpec(way=WAY, shot=shot, query=QUERY, episodes=episodes, seed=seed), data.labels)


def ours(row: Row, data: Features, shot: int, seed: int) -> tuple[float, float]:
    """Episodes a second and accuracy."""
    strategy = build(registry().strategy(row.strategy), row.options)
    begin = clock()
    episodes = drawn(data, shot, row.episodes, seed)
    solver, right = Solver(strategy, data, episodes, torch.device("cpu")), 0
    for chosen in blocks(episodes, row.batch):
        logits, _ = solver.solve(chosen)
        right += int((logits.argmax(-1).numpy() == episodes.query_labels[chosen]).sum())
    seconds = clock() - begin
    return row.episodes / seconds, right / (row.episodes * WAY * QUERY)


def profile(row: Row, data: Features, shot: int) -> dict[str, float]:
    """Microseconds an episode that each step of ours takes, drawing apart."""
    strategy, episodes = build(registry().strategy(row.strategy), row.options), drawn(data, shot, row.episodes, SEED)
    solver, spent = Solver(strategy, data, episodes, torch.device("cpu")), dict.fromkeys(STEPS, 0.0)
    for chosen in blocks(episodes, row.batch):
        times = [clock()]
        task, query = solver.gather(chosen)
        times.append(clock())
        head = strategy.fit(task)
        times.append(clock())
        logits = head.logits(query)
        times.append(clock())
        (logits.argmax(-1).numpy() == episodes.query_labels[chosen]).sum()
        times.append(clock())
        for step, begin, end in zip(STEPS, times, times[1:], strict=False):
            spent[step] += end - begin
    return {step: round(1e6 * seconds / row.episodes, 1) for step, seconds in spent.items()}


def easyfsl(row: Row, data: Features, shot: int, seed: int) -> tuple[float, float]:
    from easyfsl.datasets import FeaturesDataset
    from easyfsl.samplers import TaskSampler
    from easyfsl.utils import evaluate

    method = getattr(importlib.import_module("easyfsl.methods"), row.peer)(torch.nn.Identity())
    bank = FeaturesDataset(data.labels.tolist(), data.x, list(data.classes))
    begin = clock()
    sampler = TaskSampler(bank, WAY, shot, QUERY, row.peer_episodes)
    loader = DataLoader(bank, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)
    accuracy = evaluate(method, loader, device="cpu", use_tqdm=False)
    return row.peer_episodes / (clock() - begin), accuracy


def scikit_learn(row: Row, data: Features, shot: int, seed: int) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    episodes, x, right = drawn(data, shot, row.peer_episodes, seed), data.x.numpy(), 0
    begin = clock()
    for i in range(row.peer_episodes):
        model = LogisticRegression(C=row.options["c"], max_iter=1000)
        model.fit(x[episodes.support[i]], episodes.support_labels[i])
        right += int((model.predict(x[episodes.query[i]]) == episodes.query_labels[i]).sum())
    return row.peer_episodes / (clock() - begin), right / (row.peer_episodes * WAY * QUERY)


def objective_gap(row: Row, data: Features, shot: int) -> float:
    """How far our objective is above scikit-learn's at its tightest, relative; the worst of 64 episodes."""
    from sklearn.linear_model import LogisticRegression

    c = float(str(row.options["c"]))
    episodes = drawn(data, shot, 64, SEED)
    solver = Solver(registry().strategy(row.strategy)(), data, episodes, torch.device("cpu"))
    task, _ = solver.gather(np.arange(64))
    head = build(registry().strategy(row.strategy), row.options).fit(task)
    assert isinstance(head, LinearHead)
    assert head.bias is not None
    worst = 0.0
    for i in range(64):
        model = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(
            task.support[i].double().numpy(), task.labels[i].numpy()
        )
        best = objective(task[i], torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_), c)
        worst = max(worst, objective(task[i], head.weight[i].double(), head.bias[i].double(), c) / best - 1)
    return worst


def objective(task: Task, weight: torch.Tensor, bias: torch.Tensor, c: float) -> float:
    scores = task.support.double() @ weight.mT + bias
    loss = torch.nn.functional.cross_entropy(scores, task.labels, reduction="sum")
    return float(c * loss + weight.square().sum() / 2)


def measure(row: Row, data: Features, shot: int, rounds: int) -> dict[str, object]:
    theirs = scikit_learn if row.peer == "LogisticRegression" else easyfsl
    ours(row, data, shot, SEED)  # warm up
    pairs = [(theirs(row, data, shot, seed), ours(row, data, shot, seed)) for seed in range(rounds)]
    ratios = [mine[0] / other[0] for other, mine in pairs]
    found: dict[str, object] = {
        "strategy": row.strategy,
        "options": row.options,
        "peer": row.peer,
        "shot": shot,
        "batch": row.batch,
        "peer_per_second": round(statistics.median(other[0] for other, _ in pairs), 1),
        "fewshot_per_second": round(statistics.median(mine[0] for _, mine in pairs), 1),
        "ratio": round(statistics.median(ratios), 1),
        "ratios": [round(ratio, 1) for ratio in ratios],
        "goal": row.goal,
        "peer_accuracy": round(statistics.mean(other[1] for other, _ in pairs), 4),
        "fewshot_accuracy": round(statistics.mean(mine[1] for _, mine in pairs), 4),
    }
    found["microseconds"] = profile(row, data, shot)
    if theirs is scikit_learn:
        found["objective_gap"] = float(f"{objective_gap(row, data, shot):.2g}")
    print(
        "{strategy:16} {shot} shot  {fewshot_per_second:>9} /s  {peer} {peer_per_second:>7} /s  x{ratio}".format(
            **found
        )
    )
    return found


def page(found: dict[str, Any]) -> str:
    """Tables of the ratios and of where our time goes."""
    cpu, results = found["cpu"], found["results"]
    ratios = [
        f"| {named(r)} | {r['shot']} | {r['peer']} | {r['peer_per_second']} | {r['fewshot_per_second']} | "
        f"{r['ratio']} | {r['goal']} | {100 * r['peer_accuracy']:.1f} / {100 * r['fewshot_accuracy']:.1f} |"
        for r in results
    ]
    spent = [
        f"| {named(r)} | {r['shot']} | {r['batch']} | {' | '.join(str(r['microseconds'][s]) for s in STEPS)} |"
        for r in results
    ]
    gaps = [
        f"{named(r)}, {r['shot']} shots: objective {r['objective_gap']} (a share) above the least, at most.\n"
        for r in results
        if "objective_gap" in r
    ]
    return f"""# Episodes a second, beside easyfsl and scikit-learn

{found["what"].capitalize()}.
{found["clock"].capitalize()} time, {cpu["threads"]} threads on {cpu["model"]} ({cpu["count"]} cores), load
{found["load_before"][0]} before; versions {found["versions"]}.

Each ratio is the median over rounds in which both sides take turns; goals come from another machine. Made by
`python benchmarks/speed_strategies.py --out benchmarks/results/speed_strategies`.

| strategy | shots | peer | its episodes/s | ours | ratio | goal | accuracy, peer / ours |
|---|---|---|---|---|---|---|---|
{NEWLINE.join(ratios)}

Where our time goes, in microseconds an episode (drawing apart):

| strategy | shots | batch | {" | ".join(STEPS)} |
|---|---|---|{"---|" * len(STEPS)}
{NEWLINE.join(spent)}

What bounds ours: `gather` copies each row of 2 kB out of the data once and `score` reads it again, so `prototypical`
and `simpleshot` wait for memory; `laplacian_shot` and `bd_cspn` spend most of `fit` on the products of all rows of an
episode, as their peers do. The peers also wait for Python, so that a processor with faster cores shortens the lead.

{NEWLINE.join(gaps)}"""


def named(result: dict[str, Any]) -> str:
    return " ".join([result["strategy"], *(f"{key}={value}" for key, value in result["options"].items())])


def processor() -> str:
    """Name of the processor where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="strategies, separated by commas")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out", type=Path, help="path without ending; writes .json and .md")
    options = parser.parse_args()
    global clock
    clock = CLOCKS[options.clock]
    # easyfsl 1.5 passes data_source to Sampler.__init__, which newer versions of torch no longer take.
    Sampler.__init__ = lambda *_, **__: None
    data, wanted = make_data(), {name for name in options.only.split(",") if name}
    rows = [row for row in ROWS if not wanted or row.strategy in wanted]
    found = {
        "what": "episodes a second, 5-way, 15 queries a class, 512-d features, drawing and counting included",
        "seed": SEED,
        "clock": options.clock,
        "cpu": {"model": processor(), "count": os.cpu_count(), "threads": torch.get_num_threads()},
        "load_before": [round(v, 2) for v in os.getloadavg()],
        "versions": versions(),
        "results": [measure(row, data, shot, options.rounds) for row in rows for shot in SHOTS],
        "load_after": [round(v, 2) for v in os.getloadavg()],
    }
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        options.out.with_suffix(".md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
