"""Run the committed results again and compare them bit for bit; what time and memory they took is left out.

FEWSHOT_DATA=../shared/data python benchmarks/reproduce.py [SUITE...] [-s STRATEGY...] [--write] [--cache DIR]

SUITE is a file of benchmarks/suites, without its ending; its results have the same name in benchmarks/results. Without
one, all suites with committed results are run; with -s only the rows of these strategies. One thread on the CPU, since
how a sum is split among threads decides its last bits. Without --cache every picture is embedded again. Exit code 1
names each result that differs; other versions of numpy or torch, or a processor with other vector instructions, may
differ in the last digits. --write replaces the committed results (with -s, those rows) and their tables; a stopped one
goes on.
"""

import argparse
import csv
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch

from fewshot.bench import run_suite
from fewshot.cli.cells import Cells
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
    """Everything of a result except what two runs of the same program differ in, and the versions, told once."""
    return {name: value for name, value in result_to_dict(result).items() if name not in ("cost", "versions")}


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


def rows_of(report: Report, only: Sequence[str]) -> list[int]:
    """Places of the results of these strategies; of all when none is named."""
    return [i for i, r in enumerate(report.results) if not only or r.strategy in only]


def renewed(committed: Report, again: Report, only: Sequence[str]) -> Report:
    """Put new results in the place of the committed ones of these strategies, if there are as many of them."""
    if not only:
        return again
    places = rows_of(committed, only)
    if len(places) != len(again.results):
        sys.exit(f"{len(places)} results are committed, {len(again.results)} were found: write the whole suite")
    results = list(committed.results)
    for place, result in zip(places, again.results, strict=True):
        results[place] = result
    return Report(tuple(results))


def version_note(committed: Report, again: Report) -> str:
    """Say which versions made the committed results, where they are others than these."""
    old, new = ({f"{k} {v}" for r in report.results for k, v in r.versions.items()} for report in (committed, again))
    return f" (made with {', '.join(sorted(old - new))}; here {', '.join(sorted(new - old))})" if old != new else ""


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


def reproduce(suite: str, cache: Path, *, only: Sequence[str], write: bool) -> bool:
    """Run a suite; write its results, or compare them with the committed ones and tell whether they are equal."""
    file = HERE / "results" / f"{suite}.json"
    committed = load_report(file) if file.exists() else Report()
    journal = file.with_suffix(".cells") if write else None
    plan = read_suite(HERE / "suites" / f"{suite}.toml")
    with Cells() as cells:
        report = run_suite(
            plan, device="cpu", cache=cache, journal=journal, only=only, say=cells.say, progress=cells.advance
        )
    if journal is not None:
        report = renewed(committed, report, only)
        save_report(file, report, overwrite=True)
        text = table(suite, report, Path(os.environ["FEWSHOT_DATA"]))
        file.with_suffix(".md").write_text(text, encoding="utf-8")
        journal.unlink(missing_ok=True)
        return True
    committed = Report(tuple(committed.results[i] for i in rows_of(committed, only)))
    note, found = version_note(committed, report), differences(committed, report)
    equal = f"{suite}: all {len(report.results)} results are equal, bit for bit{note}"
    print("\n".join([*found, f"{suite}: {len(found)} differences{note}"]) if found else equal, flush=True)
    return not found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", choices=[*INTRODUCTIONS, []], metavar="SUITE")
    parser.add_argument("-s", "--strategy", action="append", default=[], metavar="STRATEGY")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("FEWSHOT_DATA", str(HERE / ".." / ".." / "shared" / "data"))
    committed = [suite for suite in INTRODUCTIONS if (HERE / "results" / f"{suite}.json").exists()]
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or Path(scratch)
        wanted = options.suites or committed
        equal = [reproduce(suite, cache, only=options.strategy, write=options.write) for suite in wanted]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
