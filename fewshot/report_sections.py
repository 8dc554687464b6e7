"""What a report's page shows of results: tables and figures, from nothing but the results themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fewshot.compare import compare_within
from fewshot.figures import Line, accuracy_figure, confusion_figure, recall_figure, reliability_figure
from fewshot.metrics.interval import Estimate
from fewshot.report import Report, Result
from fewshot.report_table import percent, span, speed, strategy_name, task_name, task_names
from fewshot.scoring import MISTAKES
from fewshot.svg import short

MOST_CLASSES = 25  # in a figure


class Table(NamedTuple):
    """A table whose first `words` columns are words and the others numbers."""

    words: int
    head: list[str]
    rows: list[list[str]]


def called(result: Result) -> str:
    """Name of a result's strategy, with a star when it is transductive."""
    return strategy_name(result) + ("*" if result.transductive else "")


def table_of(rows: Sequence[dict[str, str]], words: Sequence[str]) -> Table:
    """Lay out rows, without the columns that hold nothing, or the same encoder everywhere."""
    heads = [h for h in dict.fromkeys(k for row in rows for k in row) if any(row.get(h, "-") != "-" for row in rows)]
    heads = [h for h in heads if h != "encoder" or len({row[h] for row in rows}) > 1]
    return Table(sum(h in words for h in heads), heads, [[row.get(h, "-") for h in heads] for row in rows])


def comparison_table(results: Sequence[Result]) -> Table:
    """One row for each encoder, task and strategy, means with 95 % half widths; marginals stand side by side."""
    grouped: dict[str, dict[str, Result]] = {}
    tasks: dict[str, str] = {}
    for r, task in zip(results, task_names(results), strict=True):
        spec = {k: v for k, v in r.spec.items() if k != "marginal"}
        cell = json.dumps([r.encoder, r.strategy, r.options, r.calibrated, spec], sort_keys=True)
        grouped.setdefault(cell, {})[str(r.spec["marginal"])] = r
        tasks[cell] = task
    rows = []
    for cell, found in grouped.items():
        r = next(iter(found.values()))
        row = {"encoder": r.encoder, "task": tasks[cell], "strategy": called(r)}
        for marginal in ("balanced", "dirichlet", "longtail"):
            row[f"accuracy, {marginal}"] = percent(found[marginal].metrics["accuracy"]) if marginal in found else "-"
        row["n"] = str(r.metrics["accuracy"].n)
        for name, title in (("macro_f1", "macro-F1"), ("auroc", "AUROC"), ("harmonic", "H"), ("ece", "ECE")):
            row[title] = percent(r.metrics.get(name))
        row["NLL"] = nats(r.metrics.get("nll"))
        rows.append(row)
    return table_of(rows, ("encoder", "task", "strategy"))


def nats(value: Estimate | None) -> str:
    """Write a log-loss with its half width."""
    if value is None or math.isnan(value.mean):
        return "-"
    return f"{value.mean:.3f}" + ("" if math.isnan(value.half_width) else f" ± {value.half_width:.3f}")


def difference_table(results: Sequence[Result]) -> Table:
    """Paired differences of all strategies from the first one, wherever they met the same episodes."""
    rows = []
    pairs = compare_within(Report(tuple(results)))
    for c, task in zip(pairs, task_names([c.second for c in pairs]), strict=True):
        several = c.first.encoder != c.second.encoder
        rows.append(
            {
                "task": task,
                "queries": str(c.second.spec["marginal"]),
                "strategy": called(c.second) + (f", {c.second.encoder}" if several else ""),
                "against": called(c.first) + (f", {c.first.encoder}" if several else ""),
                "difference": percent(c.difference),
                "bootstrap": span(c.bootstrap),
                "win/tie/loss": f"{c.wins}/{c.ties}/{c.losses}",
                "n": str(c.difference.n),
            }
        )
    return table_of(rows, ("task", "queries", "strategy", "against"))


def cost_table(results: Sequence[Result]) -> Table:
    """Time, memory, and the labels each strategy was shown."""
    rows = []
    for r, task in zip(results, task_names(results), strict=True):
        budget = r.budget
        hidden = f"{budget.unlabeled:g} ({budget.unlabeled_from})" if budget.unlabeled else "-"
        counts = {"validation": budget.validation, "source": budget.source, "phrases a class": budget.phrases}
        counts["attributes"] = budget.attributes
        rows.append(
            {
                "encoder": r.encoder,
                "task": task,
                "queries": str(r.spec["marginal"]),
                "strategy": called(r),
                "embedded/s": speed(r.cost.embedded_per_second),
                "dim": str(r.cost.dim or "-"),
                "seconds": speed(r.cost.seconds),
                "of it fitting": speed(r.cost.fit_seconds),
                "episodes/s": speed(r.cost.episodes_per_second),
                "peak MB": f"{r.cost.peak_mb:.0f}",
                "labels an episode": f"{budget.support:g}",
                "unlabelled": hidden,
                **{name: str(number) if number else "-" for name, number in counts.items()},
            }
        )
    return table_of(rows, ("encoder", "task", "queries", "strategy"))


def source_section(results: Sequence[Result]) -> dict[str, Any]:
    """What is needed to get the same numbers again: what all results share, and a table of the rest."""
    rows = []
    for r in results:
        idle = {"alpha": "dirichlet", "imbalance": "longtail"}  # settings that only this marginal uses
        idle |= {"way": "", "shot": "", "marginal": ""}  # the task and its own column tell them
        marginal = str(r.spec["marginal"])
        settings = {k: str(v) for k, v in r.spec.items() if idle.get(k, marginal) == marginal and (v or k == "seed")}
        rows.append(
            {
                "task": task_name(r.spec),
                "marginal": marginal,
                "checksum of the episodes": r.episodes[:16],
                "encoder": r.encoder,
                "fingerprint": r.fingerprint,
                "device": r.device,
                **settings,
                **{f"{name} version": number for name, number in sorted(r.versions.items())},
            }
        )
    rows = [row for i, row in enumerate(rows) if row not in rows[:i]]
    shared = {k: v for k, v in rows[0].items() if all(row.get(k) == v for row in rows)}
    rest = [{k: v for k, v in row.items() if k not in shared} for row in rows] if len(rows) > 1 else []
    return {"shared": shared, "table": table_of(rest, [k for row in rest for k in row])}


def accuracy_figures(name: str, results: Sequence[Result]) -> list[str]:
    """One figure for each kind of episode that differs in more than its shots."""
    grouped: dict[str, list[Result]] = {}
    for r in results:
        rest = {k: v for k, v in r.spec.items() if k != "shot"}
        grouped.setdefault(json.dumps(rest, sort_keys=True), []).append(r)
    specs = [json.loads(key) for key in grouped]
    differ = [
        k for k in specs[0] if k not in ("way", "marginal", "unknown", "unseen") and len({str(s[k]) for s in specs}) > 1
    ]
    figures = []
    for number, (spec, group) in enumerate(zip(specs, grouped.values(), strict=True)):
        way = task_name({**spec, "shot": 0}).partition("w")[0]
        said = [f"{way} classes", f"{spec['marginal']} queries", *(f"{k} {spec[k]}" for k in differ)]
        said += [f"{spec[k]} {k} classes" for k in ("unknown", "unseen") if spec[k]]
        title = f"{short(group[0].dataset, 40)}: accuracy, {', '.join(said)}"
        shots = sorted(
            {_shot(r) for r in group}, key=lambda shot: sum(map(int, shot.split("-"))) / len(shot.split("-"))
        )
        figures.append(accuracy_figure(f"{name}-a{number}", short(title, 90), shots, _lines(group)))
    return figures


def _shot(result: Result) -> str:
    shot = result.spec["shot"]
    return "-".join(map(str, shot)) if isinstance(shot, list) else str(shot)


def _lines(group: Sequence[Result]) -> list[Line]:
    encoders = {r.encoder for r in group}
    lines: dict[str, dict[str, Estimate]] = {}
    for r in group:
        label = short(called(r), 30) + (f", {short(r.encoder, 20)}" if len(encoders) > 1 else "")
        lines.setdefault(label, {})[_shot(r)] = r.metrics["accuracy"]
    return [Line(label, points) for label, points in lines.items()]


def focus_of(results: Sequence[Result], strategy: str = "") -> Result:
    """Choose the result to look at more closely: the most accurate of those with the most shots and then classes."""
    among = [r for r in results if r.strategy == strategy] or list(results)
    among = [r for r in among if r.spec["marginal"] == "balanced"] or among

    def rank(result: Result) -> tuple[float, float, float]:
        way = np.max(result.spec["way"]) or math.inf  # 0 is every class
        return np.max(result.spec["shot"]), way, result.metrics["accuracy"].mean

    return max(among, key=rank)


def focus_section(name: str, result: Result) -> dict[str, Any]:
    """Reliability, recall and confusions of one result."""
    recall = sorted(
        ((c, right / total, right, total) for c, (right, total) in result.recall.items()), key=lambda c: c[1]
    )
    shown = [(c, share) for c, share, _, _ in recall[:MOST_CLASSES]]
    which = f"the {MOST_CLASSES} hardest classes" if len(recall) > MOST_CLASSES else "every class"
    rows = [[c, f"{100 * share:.1f}", str(right), str(total)] for c, share, right, total in recall]
    pairs = [[a, b, str(n), f"{100 * n / result.recall[a][1]:.1f}"] for a, b, n in result.mistakes[:15]]
    return {
        "result": result,
        "strategy": called(result),
        "task": task_name(result.spec),
        "accuracy": percent(result.metrics["accuracy"]),
        "ece": percent(result.metrics["ece"]),
        "reliability": reliability_figure(f"{name}-r", "Reliability", result.reliability),
        "recall": recall_figure(f"{name}-c", f"Recall of {which}", shown),
        "recall_table": Table(1, ["class", "recall, %", "right", "queries"], rows),
        "confusion": _confusion(f"{name}-m", result),
        "confusion_cut": len(result.mistakes) >= MISTAKES,
        "confused": Table(2, ["true class", "taken for", "queries", "% of the class"], pairs),
    }


def _confusion(name: str, result: Result) -> str:
    """Draw the classes that are most often mistaken or taken for, in the data's order."""
    wrong = dict.fromkeys(result.recall, 0)
    for true, taken, n in result.mistakes:
        wrong[true] += n
        wrong[taken] = wrong.get(taken, 0) + n
    worst = sorted(result.recall, key=lambda c: -wrong[c])[:MOST_CLASSES]
    chosen = [c for c in result.recall if c in worst]
    share = np.zeros((len(chosen), len(chosen)))
    for i, c in enumerate(chosen):
        share[i, i] = result.recall[c][0] / result.recall[c][1]
    for a, b, n in result.mistakes:
        if a in worst and b in worst:
            share[chosen.index(a), chosen.index(b)] = n / result.recall[a][1]
    cut = f", the {len(chosen)} classes with most mistakes" if len(chosen) < len(result.recall) else ""
    return confusion_figure(name, f"Confusion matrix, % of each true class{cut}", chosen, share)
