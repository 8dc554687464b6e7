"""Memory and time of `tca` on 100,000 items, each case in a process of its own: the peak of all it ever held.

    python benchmarks/tca_memory.py [--write]

60,000 source items with labels, 40,000 target items of which 100 have one, uniform on the sphere. The peak counts the
interpreter, torch and the items themselves, once as drawn and once in the task.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from fewshot import fit, make_task
from fewshot.arrays import unit
from fewshot.provenance import versions
from fewshot.registry import registry

RESULT = Path(__file__).parent / "results" / "tca_memory.json"
SOURCE, TARGET, CLASSES, TAUGHT = 60_000, 40_000, 10, 100
CASES = ((256, 0), (256, 500), (1664, 0))  # dims (1,664 are lite's), landmarks


def measure(dims: int, landmarks: int) -> dict[str, float]:
    """Fit once in this process."""
    x = unit(torch.randn(SOURCE + TARGET, dims, generator=torch.Generator().manual_seed(0)))
    near, far = x[SOURCE:], x[:SOURCE]
    labels = torch.arange(SOURCE) % CLASSES
    task = make_task(near[:TAUGHT], labels[:TAUGHT], source=far, source_labels=labels, unlabeled=near[TAUGHT:])
    start = time.perf_counter()
    fit(registry().strategy("tca")(landmarks=landmarks), task)  # type: ignore[call-arg]
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"dims": dims, "landmarks": landmarks, "peak_gb": round(peak, 2), "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/tca_memory.json")
    parser.add_argument("--case", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(*given.case)))
        return
    rows = []
    for case in CASES:
        words = [sys.executable, __file__, "--case", *map(str, case)]
        rows.append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
        print(rows[-1], flush=True)
    result = {
        "command": "python benchmarks/tca_memory.py --write",
        "items": {"source": SOURCE, "target": TARGET, "labelled target": TAUGHT, "classes": CLASSES, "seed": 0},
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "cases": rows,
    }
    if given.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
