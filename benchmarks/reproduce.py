"""Run the committed results again and compare them bit for bit; what time and memory they took is left out.

FEWSHOT_DATA=../shared/data python benchmarks/reproduce.py [--write] [--cache DIR]

One thread on the CPU, since how a sum is split among threads decides its last bits. Without --cache every picture is
embedded again. Exit code 1 names each result that differs; other versions of numpy or torch, or a processor with other
vector instructions, may differ in the last digits. --write replaces the committed results and their table.
"""

import argparse
import csv
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch

from fewshot.bench import run_suite
from fewshot.report import Report, Result, load_report, result_to_dict, save_report
from fewshot.report_table import percent, report_lines, strategy_name, task_name
from fewshot.suite import read_suite

HERE = Path(__file__).parent
COMMITTED = HERE / "results" / "published.json"
TABLE = HERE / "results" / "published.md"


def comparable(result: Result) -> dict[str, object]:
    """Everything of a result except what two runs of the same program differ in."""
    return {name: value for name, value in result_to_dict(result).items() if name != "cost"}


def differences(committed: Report, again: Report) -> list[str]:
    """Say which results differ, and in which fields."""
    lines = []
    if len(committed.results) != len(again.results):
        lines.append(f"{len(committed.results)} results are committed, {len(again.results)} were found")
    for old, new in zip(committed.results, again.results, strict=False):
        a, b = comparable(old), comparable(new)
        fields = [name for name in a if a[name] != b[name]]
        if fields:
            title = f"{new.dataset} {task_name(new.spec)} {new.encoder} {strategy_name(new)}"
            lines.append(f"{title}: {', '.join(fields)} differ")
    return lines


def published(data: Path) -> dict[int, str]:
    """Caltech-101 accuracy of CLIP RN50 with GDA in CoOp's protocol by shots: mean of three runs."""
    found = defaultdict(list)
    with (data / "published" / "gda_clip_fewshot_runs.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["dataset"], row["backbone"]) == ("caltech101", "RN50"):
                found[int(row["shots"])].append(float(row["acc"]))
    return {shot: f"{mean(values):.1f}" for shot, values in found.items()}


def caltech_rows(report: Report, clip: dict[int, str]) -> list[str]:
    """Accuracy against shots beside the published rows, as Markdown."""
    rows: dict[str, dict[int, str]] = defaultdict(dict)
    for r in report.results:
        if r.dataset == "caltech101" and r.spec["way"] == 0:
            text = f", {r.budget.phrases} phrases a class" if r.budget.phrases else ""
            budget = f"`{r.strategy}`, {r.encoder}; {'labels: the shots' if r.spec['shot'] else 'no labels'}{text}"
            rows[budget][r.spec["shot"]] = percent(r.metrics["accuracy"])
    shots = sorted({s for row in rows.values() for s in row})
    rows["GDA, CLIP RN50 (published, mean of 3 seeds); labels: the shots, and a validation split; phrases"] = clip
    head = ["| what, encoder; budget | " + " | ".join(map(str, shots)) + " |", "|---" * (1 + len(shots)) + "|"]
    return head + [f"| {name} | " + " | ".join(row.get(s, "") for s in shots) + " |" for name, row in rows.items()]


def table(report: Report, data: Path) -> str:
    found = ["```", *report_lines(report), "```"]
    return "\n".join(
        [
            "# Results on published protocols",
            "",
            "Made by `FEWSHOT_DATA=../shared/data python benchmarks/reproduce.py --write`; without `--write` the",
            "command runs everything again and compares bit for bit. Every setting is in `published.json`.",
            "",
            "## Caltech-101, CoOp protocol (100 classes, 2,465 test pictures, accuracy in %, by shots)",
            "",
            *caltech_rows(report, published(data)),
            "",
            "## Everything",
            "",
            "Omniglot's one-shot challenge (omniglot_challenge): the modified Hausdorff baseline has 61.25 % accuracy",
            "(`benchmarks/modified_hausdorff.py`; published: 61.2 %), people 95.5 %. The stage, pooling",
            "and constants of `lite:stage5`, `lite:stage6` and `dn4` were chosen on these same 400 queries, so their",
            "figures are optimistic. auroc: known against unknown classes.",
            "",
            *found,
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("FEWSHOT_DATA", str(HERE / ".." / ".." / "shared" / "data"))
    suite = read_suite(HERE / "suites" / "published.toml")
    with tempfile.TemporaryDirectory() as scratch:
        report = run_suite(suite, device="cpu", cache=options.cache or Path(scratch), say=print)
    if options.write:
        save_report(COMMITTED, report, overwrite=True)
        TABLE.write_text(table(report, Path(os.environ["FEWSHOT_DATA"])), encoding="utf-8")
        return 0
    found = differences(load_report(COMMITTED), report)
    print("\n".join(found) or f"all {len(report.results)} results are equal, bit for bit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
