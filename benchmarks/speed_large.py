"""Time and memory of one large task: 1,000 classes x 16 shots x 512-d, and logistic regression on 50,000 x 512.

python benchmarks/speed_large.py [--only gda,linear_probe] [--peer] [--json FILE]

Each inductive strategy fits in a process of its own, on synthetic unit vectors with a phrase and 85 attributes a class;
seconds of wall and processor time count the fit alone, the peak of memory the process with all its libraries. `--peer`
adds scikit-learn's LogisticRegression side by side with `linear_probe` on 50,000 x 512 with 1,000 classes, and the
objective each arrives at. `--only` replaces the rows of these strategies in FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from fewshot.provenance import versions
from fewshot.registry import registry
from fewshot.strategy import LinearHead, fit
from fewshot.task import Task, make_task

CLASSES, SHOTS, DIM, ATTRIBUTES, EXAMPLES, C = 1000, 16, 512, 85, 50_000, 1.0
TOLERANCE = 1e-3  # of the least objective: scikit-learn stops about as far above it


def material(per_class: int) -> tuple[Tensor, Tensor, Tensor]:
    """Examples, labels and class centres.  -> [S, D], [S], [C, D]"""
    rng = torch.Generator().manual_seed(0)
    centre = normalize(torch.randn(CLASSES, DIM, generator=rng), dim=-1)
    noise = torch.randn(CLASSES * per_class, DIM, generator=rng) / DIM**0.5
    x = normalize(centre.repeat_interleave(per_class, 0) + 1.5 * noise, dim=-1)
    return x, torch.arange(CLASSES).repeat_interleave(per_class), centre


def large_task(name: str) -> Task:
    """Build what a strategy takes: examples, and phrases and attributes where it uses them."""
    x, y, centre = material(SHOTS)
    rng = torch.Generator().manual_seed(1)
    text = normalize(centre + torch.randn(CLASSES, DIM, generator=rng) / DIM**0.5, dim=-1)
    attributes = (100 * torch.rand(CLASSES, ATTRIBUTES, generator=rng)).round()
    cls = registry().strategy(name)
    taken = cls.needs | cls.uses
    source = material(SHOTS)[:2] if "source" in taken else (None, None)
    return make_task(
        support=x,
        labels=y,
        text=text if "text" in taken else None,
        attributes=attributes if "attributes" in taken else None,
        source=source[0],
        source_labels=source[1],
    )


def one(name: str) -> dict[str, object]:
    """Fit one strategy here and now."""
    task, strategy = large_task(name), registry().strategy(name)()
    begin, cpu = time.perf_counter(), time.process_time()
    fit(strategy, task)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"strategy": name, "seconds": round(wall, 2), "cpu_seconds": round(cpu, 2), "peak_GiB": round(peak, 2)}


def peer() -> dict[str, object]:
    """Compare `linear_probe` and scikit-learn on the same rows, at the same C, ours with the objective of theirs."""
    from sklearn.linear_model import LogisticRegression

    x, y, _ = material(EXAMPLES // CLASSES)
    strategy = registry().strategy("linear_probe")(c=C, tolerance=TOLERANCE)  # type: ignore[call-arg]
    begin = time.perf_counter()
    head = fit(strategy, make_task(support=x, labels=y))
    ours = time.perf_counter() - begin
    begin = time.perf_counter()
    model = LogisticRegression(C=C, max_iter=1000).fit(x.numpy(), y.numpy())
    theirs = time.perf_counter() - begin
    assert isinstance(head, LinearHead)
    assert head.bias is not None
    loss = objective(x, y, head.weight, head.bias)
    least = objective(x, y, torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_))
    return {
        "what": f"{EXAMPLES} x {DIM}, {CLASSES} classes, C = {C}",
        "linear_probe_seconds": round(ours, 1),
        "scikit_learn_seconds": round(theirs, 1),
        "ratio": round(theirs / ours, 2),
        "linear_probe_objective": loss,
        "scikit_learn_objective": least,
        "gap": float(f"{loss / least - 1:.2g}"),
    }


def objective(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> float:
    w, loss = weight.double(), 0.0
    for rows, labels in zip(x.split(5000), y.split(5000), strict=True):
        loss += float(cross_entropy(rows.double() @ w.mT + bias.double(), labels, reduction="sum"))
    return C * loss + float(w.square().sum()) / 2


def inductive() -> list[str]:
    """Strategies that learn from examples and do not look at unlabelled items, in order of name."""
    known = {name: registry().strategy(name)() for name in sorted(registry().strategies)}
    return [n for n, s in known.items() if not s.transductive and "support" in s.needs | s.uses]


def measure(name: str) -> dict[str, object]:
    """Fit one strategy in a new process."""
    done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout) if done.returncode == 0 else {"strategy": name, "failed": done.stderr[-300:]}
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="strategies, separated by commas; all inductive ones when none")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--peer", action="store_true", help="compare with scikit-learn on 50,000 rows too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one)))
        return
    result: dict[str, object] = {
        "what": f"{CLASSES} classes x {SHOTS} shots x {DIM}-d, one fit",
        "cpu": {"count": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": versions(),
        "load_before": [round(v, 2) for v in os.getloadavg()],
    }
    if options.peer:
        result["logistic_regression"] = peer()
        print(result["logistic_regression"], flush=True)
    found = {name: measure(name) for name in (options.only.split(",") if options.only else inductive())}
    if options.only and options.json and options.json.exists():  # the rest stays as it was measured
        before = json.loads(options.json.read_text(encoding="utf-8"))
        result = before | result
        found = {row["strategy"]: row for row in before["results"]} | found
    result["results"] = [found[name] for name in sorted(found)]
    result["load_after"] = [round(v, 2) for v in os.getloadavg()]
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
