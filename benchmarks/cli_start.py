"""How long `fewshot --help` takes, beside the bare start of Python and the import of torch it must avoid.

python benchmarks/cli_start.py --out benchmarks/results/cli_start.json
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "fewshot --help": [sys.executable, "-m", "fewshot", "--help"],
    "python -c 'import click, pluggy'": [sys.executable, "-c", "import click, pluggy"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    for command in COMMANDS.values():
        seconds(command)  # warm the disk cache
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(given.runs):  # interleaved, so that a slow moment of the machine hits all alike
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    rows = {
        name: {"median_s": statistics.median(t), "min_s": min(t), "max_s": max(t), "n": len(t)}
        for name, t in taken.items()
    }
    result = {
        "benchmark": "cli_start",
        "rows": rows,
        "versions": {"python": platform.python_version()} | {n: version(n) for n in ("fewshot", "click", "torch")},
        "machine": f"{platform.system()} {platform.machine()}",
    }
    for name, row in rows.items():
        print(f"{name:34} median {row['median_s']:.3f} s  ({row['min_s']:.3f} to {row['max_s']:.3f}, n = {row['n']})")
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
