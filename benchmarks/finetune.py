"""Fine-tune the last stages of `lite` on Caltech-101's 16 shots, and compare with the frozen linear probe.

FEWSHOT_DATA=../shared/data python benchmarks/finetune.py [--work DIR] [--only NAME] [--write]

Every way of fine-tuning sees only the 1,600 training pictures of CoOp's split and holds out a fifth of them to stop by;
`linear_probe` with its default C then learns from the embeddings of all 1,600, tuned or not, and is tested once on the
2,465 test pictures. Embeddings and checkpoints are kept in --work, so a stopped run goes on.
"""

import argparse
import json
import os
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.arrays import to_numpy
from fewshot.datasets import Items
from fewshot.datasets.caltech101 import read_caltech101
from fewshot.embed_items import embed_items
from fewshot.encoders import load_encoder
from fewshot.metrics.interval import mean_interval
from fewshot.modelfile import read_model
from fewshot.provenance import versions
from fewshot.registry import registry
from fewshot.strategy import fit
from fewshot.task import make_task
from fewshot.training.pictures import of_split
from fewshot.training.run import run_supervised

RESULT = Path(__file__).parent / "results" / "finetune.json"
SHORT = {"epochs": 8, "patience": 3}
WAYS: dict[str, dict[str, object]] = {
    "last 2 stages": {"freeze": "stages:2", **SHORT},
    "last 2 stages, LoRA 8": {"freeze": "stages:2", "lora": 8, "rate": 1e-3, **SHORT},
    "gains and biases": {"freeze": "norm", "rate": 1e-3, **SHORT},
    "last 3 stages": {"freeze": "stages:3", **SHORT},
}
CPU = torch.device("cpu")


def scores(encoder: str, items: Items, cache: Path) -> tuple[Tensor, Tensor, str]:
    """Whether each test picture is right [n], the log-loss of each [n], and the encoder's fingerprint."""
    model = load_encoder(encoder, "cpu")
    features, _ = embed_items("caltech101", items, model, cache=cache, progress=True)
    labels = torch.from_numpy(features.labels)
    train = torch.tensor([split == "train16_seed1" for split in features.splits])
    head = fit(registry().strategy("linear_probe")(), make_task(features.x[train], labels[train]))
    logits = head.logits(features.x[~train])  # [n, C]
    losses = F.cross_entropy(logits, labels[~train], reduction="none")
    return (logits.argmax(-1) == labels[~train]).double(), losses, model.fingerprint


def tuned(name: str, items: Items, work: Path) -> Path:
    """Fine-tune once; a file that is there is taken as it is."""
    out = work / (name.replace(" ", "_").replace(",", "") + ".w")
    if not out.exists():
        run_supervised(of_split(items, "train16_seed1"), WAYS[name], out, CPU, False, print)
    return out


def row(name: str, out: Path, items: Items, work: Path, frozen: Tensor) -> dict[str, object]:
    """One way of fine-tuning against the frozen features, on the same test pictures."""
    right, losses, fingerprint = scores(f"finetuned:{out}", items, work / "cache")
    gain = mean_interval(to_numpy(100 * (right - frozen)))
    _, about = read_model(out, CPU, "weights")
    log = [json.loads(line) for line in out.with_name(out.name + ".jsonl").read_text(encoding="utf-8").splitlines()]
    held = [line for line in log if "held_out_loss" in line]
    best = min(held, key=lambda line: line["held_out_loss"])
    return {
        "name": name,
        "accuracy": 100 * float(right.mean()),
        "log_loss": float(losses.mean()),
        "gain_points": gain.mean,
        "gain_half_width": gain.half_width,
        "best_epoch": best["step"],
        "epochs": held[-1]["step"],
        "held_out_before": held[0],
        "held_out_best": best,
        "training_wall_s": about["wall_s"],
        "training_cpu_s": about["cpu_s"],
        "recipe": about["recipe"],
        "fingerprint": fingerprint,
    }


def table(result: dict[str, Any]) -> str:
    frozen, names = result["frozen"], [r["name"] for r in result["tuned"]]
    only = "".join(f' --only "{name}"' for name in names) if len(names) < len(WAYS) else ""
    lines = [
        "# Fine-tuning `lite` on Caltech-101's 16 shots",
        "",
        f"Made by `FEWSHOT_DATA=../shared/data python benchmarks/finetune.py{only} --write`;",
        "settings are in `finetune.json`.",
        "`linear_probe` on the embeddings of the 1,600 training pictures, tested on 2,465. Gain: paired, with its 95 %",
        "half width.",
        "",
        "| trained | accuracy, % | log-loss | gain, points | best epoch | CPU s of training |",
        "|---|---|---|---|---|---|",
        f"| nothing (frozen) | {frozen['accuracy']:.2f} | {frozen['log_loss']:.3f} | | | 0 |",
    ]
    for r in result["tuned"]:
        gain = f"{r['gain_points']:+.2f} ± {r['gain_half_width']:.2f}"
        epochs = f"{r['best_epoch']} of {r['epochs']}"
        lines.append(
            f"| {r['name']} | {r['accuracy']:.2f} | {r['log_loss']:.3f} | {gain} | {epochs} | {r['training_cpu_s']} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(gettempdir()) / "fewshot-finetune")
    parser.add_argument("--only", action="append", choices=WAYS, help="repeatable; all without it")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    data = Path(os.environ.get("FEWSHOT_DATA", Path(__file__).parent / ".." / ".." / "shared" / "data"))
    items = read_caltech101(data / "caltech101")
    files = {name: tuned(name, items, options.work) for name in options.only or WAYS}
    right, losses, fingerprint = scores("lite", items, options.work / "cache")
    frozen = {"accuracy": 100 * float(right.mean()), "log_loss": float(losses.mean()), "fingerprint": fingerprint}
    rows = [row(name, out, items, options.work, right) for name, out in files.items()]
    result = {"frozen": frozen, "tuned": rows, "versions": versions(), "device": "cpu", "threads": 1}
    print(table(result))
    if options.write:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        RESULT.with_suffix(".md").write_text(table(result), encoding="utf-8")


if __name__ == "__main__":
    main()
