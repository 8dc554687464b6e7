"""Run the committed results again and compare them bit for bit; what time and memory they took is left out.

FEWSHOT_DATA=../shared/data python benchmarks/reproduce.py [SUITE...] [--write] [--cache DIR]

SUITE is a file of benchmarks/suites, without its ending; its results have the same name in benchmarks/results. Without
one, all suites with committed results are run. One thread on the CPU, since how a sum is split among threads decides
its last bits. Without --cache every picture is embedded again. Exit code 1 names each result that differs; other
versions of numpy or torch, or a processor with other vector instructions, may differ in the last digits. --write
replaces the committed results and their tables; a stopped one goes on.
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
WIDTH = 120  # of the tables
INTRODUCTIONS = {
    "quick": ["From package data alone: `fewshot bench run benchmarks/suites/quick.toml`."],
    "published": [],
    "omniglot": [
        "Challenge (omniglot_challenge): the modified Hausdorff baseline has 61.25 % accuracy",
        "(`benchmarks/modified_hausdorff.py`; published: 61.2 %), people 95.5 %. Stage and options of `lite:stage5`",
        "and `dn4` were chosen on background alphabets only (`benchmarks/omniglot_choice.py`, `omniglot_choice.json`).",
    ],
    "vinyals": [
        "Vinyals et al. (omniglot): 5-way and 20-way over mixed alphabets, four rotations, with the first 6 of the 20",
        "drawings of each test character: 5 queries a class at one shot, 1 at five. Nothing was trained on Omniglot.",
    ],
    "full": ["Every set of the shared data. auroc: known against unknown classes; harmonic: mean of seen and unseen."],
}


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
        if r.spec["way"] == 0 and not r.calibrated:
            text = f", {r.budget.phrases} phrases a class" if r.budget.phrases else ""
            budget = f"`{r.strategy}`, {r.encoder}; {'labels: the shots' if r.spec['shot'] else 'no labels'}{text}"
            rows[budget][r.spec["shot"]] = percent(r.metrics["accuracy"])
    rows["GDA, CLIP RN50 (published, mean of 3 seeds); labels: the shots, and a validation split; phrases"] = clip
    return markdown("what, encoder; budget", rows)


def calibration_rows(report: Report) -> list[str]:
    """Expected calibration error against shots, before and after temperature scaling, as Markdown."""
    rows: dict[str, dict[int, str]] = defaultdict(dict)
    for r in report.results:
        if r.spec["way"] == 0 and r.spec["shot"]:
            name = f"`{r.strategy}`" + (", leave-one-out temperature" if r.calibrated else "")
            rows[name][r.spec["shot"]] = f"{100 * r.metrics['ece'].mean:.1f}"
    return markdown("what", rows)


def markdown(title: str, rows: dict[str, dict[int, str]]) -> list[str]:
    """A column for each number of shots."""
    shots = sorted({s for row in rows.values() for s in row})
    head = [f"| {title} | " + " | ".join(map(str, shots)) + " |", "|---" * (1 + len(shots)) + "|"]
    return head + [f"| {name} | " + " | ".join(row.get(s, "") for s in shots) + " |" for name, row in rows.items()]


def table(suite: str, report: Report, data: Path) -> str:
    """The results of a suite as Markdown."""
    lines = [
        f"# Results of benchmarks/suites/{suite}.toml",
        "",
        f"Made by `FEWSHOT_DATA=../shared/data python benchmarks/reproduce.py {suite} --write`; without `--write` the",
        f"command runs everything again and compares bit for bit. Every setting is in `{suite}.json`.",
        "",
        *INTRODUCTIONS[suite],
    ]
    if suite == "published":
        title = "## Caltech-101, CoOp protocol (100 classes, 2,465 test pictures, accuracy in %, by shots)"
        lines += [title, "", *caltech_rows(report, published(data)), "", "## Expected calibration error in %, by shots"]
        lines += ["", *calibration_rows(report), "", "## Everything", "", "auroc: known against unknown classes."]
    return "\n".join([*lines, "", "```", *report_lines(report, WIDTH), "```", ""])


def reproduce(suite: str, cache: Path, *, write: bool) -> bool:
    """Run a suite; write its results, or compare them with the committed ones and tell whether they are equal."""
    committed = HERE / "results" / f"{suite}.json"
    journal = committed.with_suffix(".cells") if write else None
    report = run_suite(
        read_suite(HERE / "suites" / f"{suite}.toml"), device="cpu", cache=cache, journal=journal, say=print
    )
    if journal is not None:
        save_report(committed, report, overwrite=True)
        text = table(suite, report, Path(os.environ["FEWSHOT_DATA"]))
        committed.with_suffix(".md").write_text(text, encoding="utf-8")
        journal.unlink(missing_ok=True)
        return True
    found = differences(load_report(committed), report)
    print("\n".join(found) or f"{suite}: all {len(report.results)} results are equal, bit for bit", flush=True)
    return not found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", choices=[*INTRODUCTIONS, []], metavar="SUITE")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("FEWSHOT_DATA", str(HERE / ".." / ".." / "shared" / "data"))
    committed = [suite for suite in INTRODUCTIONS if (HERE / "results" / f"{suite}.json").exists()]
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or Path(scratch)
        equal = [reproduce(suite, cache, write=options.write) for suite in options.suites or committed]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
