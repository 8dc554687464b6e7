"""Test a network trained by episodes on Omniglot's background alphabets, on the challenge and on Vinyals' test split.

FEWSHOT_DATA=../shared/data python benchmarks/omniglot_episodic.py WEIGHTS [--write]

WEIGHTS is what the command in the README wrote. The protocol was fixed before the challenge was looked at, once: the
last weights of the run, nine views of each picture, `prototypical` with its defaults. Views were chosen on five
held-out background alphabets (20-way error of a two-minute run at 48 pixels: 26.5 % without, 24.1 % with); 32 pixels,
the widths and the number of steps were chosen for their time on a CPU.
"""

import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fewshot.bench import run_suite
from fewshot.encoders.weights import file_sha256
from fewshot.modelfile import read_model
from fewshot.report import result_to_dict
from fewshot.suite import Run, Suite, specs

RESULT = Path(__file__).parent / "results" / "omniglot_episodic.json"
STRATEGIES = (("prototypical", {}),)
TASKS = {  # data set and its episodes
    "challenge, 20-way 1-shot": ("omniglot_challenge", {"fixed": True}),
    "Vinyals test, 5-way 1-shot": ("omniglot", {"split": "test", "way": 5, "shot": 1, "query": 15, "episodes": 1000}),
    "Vinyals test, 20-way 1-shot": ("omniglot", {"split": "test", "way": 20, "shot": 1, "query": 5, "episodes": 1000}),
}


def measure(weights: Path, data: Path, cache: Path) -> dict[str, Any]:
    """Accuracy on every task, with what the weights' header says about their training."""
    runs = [Run(name, data, (f"finetuned:{weights}",), STRATEGIES, specs(more)) for name, more in TASKS.values()]
    report = run_suite(Suite(tuple(runs)), device="cpu", cache=cache, say=print)
    _, about = read_model(weights, torch.device("cpu"), "weights")
    results = {task: result_to_dict(found) for task, found in zip(TASKS, report.results, strict=True)}
    for found in results.values():
        for bulky in ("accuracies", "recall", "mistakes", "reliability"):
            del found[bulky]
        found["encoder"] = "finetuned:" + weights.name
    log = weights.with_name(weights.name + ".jsonl").read_text(encoding="utf-8").splitlines()[1:]
    file = {"bytes": weights.stat().st_size, "sha256": file_sha256(weights)}
    return {"training": {**about, "log": [json.loads(line) for line in log]}, "weights": file, "results": results}


def table(found: dict[str, Any]) -> str:
    training = found["training"]
    recipe = training["recipe"]
    lines = [
        "# A network trained by episodes on Omniglot's background alphabets",
        "",
        "Made by `FEWSHOT_DATA=../shared/data python benchmarks/omniglot_episodic.py WEIGHTS --write` from the weights",
        "of the README's command; recipe and all results are in `omniglot_episodic.json`.",
        "",
        f"{recipe['steps']:,} steps of {recipe['way']} classes x {recipe['shot'] + recipe['query']} drawings of "
        f"{recipe['size']} x {recipe['size']} pixels, {training['threads']} thread:",
        f"{training['cpu_s'] / 60:.1f} minutes of CPU time, {training['wall_s'] / 60:.1f} "
        "by the clock of a machine busy with other work.",
        "",
        "| task | error, % | 95 % half width | episodes |",
        "|---|---|---|---|",
    ]
    for task, result in found["results"].items():
        accuracy = result["metrics"]["accuracy"]
        half = 100 * accuracy["half_width"]
        lines.append(f"| {task} | {100 - 100 * accuracy['mean']:.2f} | {half:.2f} | {accuracy['n']} |")
    lines += [
        "",
        "Published on the challenge: prototypical network 13.7 %, siamese network 8.0 %, people 4.5 %, BPL 3.3 %.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ.get("FEWSHOT_DATA", Path(__file__).parent / ".." / ".." / "shared" / "data"))
    with TemporaryDirectory() as scratch:
        found = measure(options.weights, data / "omniglot", options.cache or Path(scratch))
    print(table(found))
    if options.write:
        RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        RESULT.with_suffix(".md").write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
