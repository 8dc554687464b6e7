"""Reports as tables of at most 80 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from fewshot.compare import Comparison
from fewshot.metrics.interval import Estimate
from fewshot.report import Report, Result

WIDTH = 80
WORDS = ("data", "encoder", "task", "queries", "strategy", "first", "second")  # columns that may be shortened
SHORTEST = 7  # of them
APART = ("data", "queries", "first")  # columns whose values get tables of their own, as far as that is needed
FOLDED = ("encoder", "queries", "first")  # columns that a title holds where they say one thing


def percent(value: Estimate | None) -> str:
    """Write a share as `73.0 ± 0.2`, in per cent; without an interval when there was one episode."""
    if value is None or math.isnan(value.mean):
        return "-"
    half = "" if math.isnan(value.half_width) else f" ± {100 * value.half_width:.1f}"
    return f"{100 * value.mean:z.1f}{half}"


def span(ends: tuple[float, float]) -> str:
    """Write an interval of shares as `[-0.5, 1.2]`, in per cent."""
    return "-" if math.isnan(ends[0]) else f"[{100 * ends[0]:z.1f}, {100 * ends[1]:z.1f}]"


def speed(value: float) -> str:
    """Write so many a second, or so many seconds: whole from 10 on, with two digits below."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def report_lines(report: Report, width: int = WIDTH) -> list[str]:
    """Write a report as lines of at most `width`: what was measured, the table, and what its signs mean."""
    if not report.results:
        return ["nothing was run"]
    said = {
        "data": sorted({r.dataset for r in report.results}),
        "encoder": sorted({r.encoder for r in report.results}),
        "episodes": map(str, sorted({len(r.accuracies) for r in report.results})),
        "seed": map(str, sorted({r.spec["seed"] for r in report.results})),
    }
    head = "; ".join(f"{name}: {', '.join(values)}" for name, values in said.items())
    rows = report_rows(report)
    tail = ["accuracy in %, mean over episodes with 95 % half width; ece in %"]
    if any(r.transductive for r in report.results):
        tail.append("* sees all queries of an episode, without labels; dirichlet: unequal numbers of queries a class")
    if any(not r.spec["query"] and not r.spec["fixed"] for r in report.results):
        tail.append("balanced: as many queries of each class, or all there are where query is 0")
    if any("dim" in row for row in rows):
        tail.append("embed/s: items that the encoder embeds in a second; dim: numbers an embedding")
    if any(r.calibrated for r in report.results):
        tail.append("+T: probabilities scaled by a temperature from leaving examples out")
    notes = [line for note in tail for line in textwrap.wrap(note, width)]
    return [*textwrap.wrap(head, width), "", *table_lines(rows, width), "", *notes]


def table_lines(rows: Sequence[dict[str, str]], width: int = WIDTH) -> list[str]:
    """Lay rows out as one table, or where that is too wide as several, one for each value of the columns `APART`.

    A column of such a table that holds nothing is left out; what every row of it says is told in the line above.
    """
    if not rows or _natural_width(rows) <= width:
        return text_table(rows, width).splitlines()
    titled = [("", list(rows))]
    for column in APART:
        if any(_natural_width(part) > width for _, part in titled):
            titled = [split for title, part in titled for split in _split(title, part, column)]
    lines: list[str] = []
    for title, part in titled:
        folded = [k for k in FOLDED if k in part[0] and len({row[k] for row in part}) == 1]
        kept = [k for k in part[0] if k not in folded and any(row[k] != "-" for row in part)]
        title = "; ".join([*([title] if title else []), *(f"{k}: {part[0][k]}" for k in folded)])
        table = text_table([{k: row[k] for k in kept} for row in part], width)
        lines += [*([""] if lines else []), *textwrap.wrap(title, width), *table.splitlines()]
    return lines


def _split(title: str, rows: Sequence[dict[str, str]], column: str) -> list[tuple[str, list[dict[str, str]]]]:
    """Put rows that differ in a column apart, its value into their title."""
    if column not in rows[0]:
        return [(title, list(rows))]
    parts: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        parts.setdefault(row[column], []).append({k: v for k, v in row.items() if k != column})
    named = {value: value if column == "data" else f"{column}: {value}" for value in parts}
    return [("; ".join(filter(None, (title, named[value]))), part) for value, part in parts.items()]


def _natural_width(rows: Sequence[dict[str, str]]) -> int:
    return sum(max(len(k), *(len(row[k]) for row in rows)) + 2 for k in rows[0]) - 2


def report_rows(report: Report) -> list[dict[str, str]]:
    """One row for each strategy, data set, encoder, way and shot; the marginals of the queries are columns.

    Every number is a mean with its 95 % half width, in per cent.
    """
    grouped: dict[tuple[str, ...], dict[str, Result]] = {}
    for result, task in zip(report.results, task_names(report.results), strict=True):
        grouped.setdefault(_cell(result, task), {})[str(result.spec["marginal"])] = result
    several = len({len(r.accuracies) for r in report.results}) > 1
    encoders = len({(r.dataset, r.encoder) for r in report.results}) > len({r.dataset for r in report.results})
    marginals = [m for m in ("balanced", "dirichlet", "longtail") if any(m in g for g in grouped.values())]
    extra = [name for name in ("auroc", "harmonic") if any(name in r.metrics for r in report.results)]
    rows = []
    for cell, found in grouped.items():
        shown = next(iter(found.values()))
        row = dict(zip(("data", "encoder", "task", "strategy"), cell[:4], strict=True))
        row |= {m: percent(found[m].metrics["accuracy"] if m in found else None) for m in marginals}
        row |= {"n": str(len(shown.accuracies))} if several else {}
        row |= {name: percent(shown.metrics.get(name)) for name in extra}
        row["ece"] = f"{100 * shown.metrics['ece'].mean:.1f}"
        row["ep/s"] = speed(shown.cost.episodes_per_second)
        if encoders:
            row |= {"embed/s": speed(shown.cost.embedded_per_second), "dim": str(shown.cost.dim or "-")}
        rows.append(row)
    return _without_constant(rows, ("data", "encoder"))


def _cell(result: Result, task: str) -> tuple[str, ...]:
    spec = {k: v for k, v in result.spec.items() if k != "marginal"}
    name = strategy_name(result) + ("*" if result.transductive else "")
    return result.dataset, result.encoder, task, name, str(sorted(spec.items()))


def strategy_name(result: Result) -> str:
    """Name of the strategy with the options that differ from its defaults; `+T` when its logits were scaled."""
    changed = ",".join(f"{k}={v}" for k, v in _changed(result).items())
    return result.strategy + (f"({changed})" if changed else "") + ("+T" if result.calibrated else "")


def _changed(result: Result) -> dict[str, Any]:
    """Options that differ from the strategy's defaults; all of them when the strategy is not installed here."""
    from fewshot.options import option_infos
    from fewshot.registry import registry

    cls = registry().strategies.get(result.strategy)
    defaults = {info.name: info.default for info in option_infos(cls)} if cls else {}
    return {k: v for k, v in result.options.items() if k not in defaults or defaults[k] != v}


def task_name(spec: dict[str, Any]) -> str:
    """Write a spec shortly: `5w1s` is 5-way 1-shot, `all` every class; `+5u` unknown and `-2z` unseen classes."""

    def number(value: Any) -> str:
        return "-".join(map(str, value)) if isinstance(value, list) else str(value)

    name = f"{'all' if spec['way'] == 0 else number(spec['way'])}w{number(spec['shot'])}s"
    name += f"+{spec['unknown']}u" if spec["unknown"] else ""
    return name + (f"-{spec['unseen']}z" if spec["unseen"] else "")


def task_names(results: Sequence[Result]) -> list[str]:
    """Name the task of each result, with the settings in which tasks of the same name and data differ."""
    alike: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for r in results:
        alike.setdefault((r.dataset, r.encoder, task_name(r.spec)), []).append(r.spec)
    names = []
    for r in results:
        name = task_name(r.spec)
        specs = alike[r.dataset, r.encoder, name]
        differ = [k for k in r.spec if k not in ("marginal", "episodes") and len({str(s[k]) for s in specs}) > 1]
        names.append(" ".join([name, *(r.spec[k] if k == "split" else f"{k}={r.spec[k]}" for k in differ)]).strip())
    return names


def _without_constant(rows: list[dict[str, str]], names: Sequence[str]) -> list[dict[str, str]]:
    """Drop columns that say the same in every row: the title says it."""
    constant = [n for n in names if len({row[n] for row in rows}) == 1]
    return [{k: v for k, v in row.items() if k not in constant} for row in rows]


def comparison_rows(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """One row a comparison; a difference counts when its interval does not hold 0."""
    rows = []
    for c, task in zip(comparisons, task_names([c.second for c in comparisons]), strict=True):
        several = c.first.encoder != c.second.encoder
        rows.append(
            {
                "data": c.second.dataset,
                "task": task,
                "queries": str(c.second.spec["marginal"]),
                "first": strategy_name(c.first) + (f", {c.first.encoder}" if several else ""),
                "second": strategy_name(c.second) + (f", {c.second.encoder}" if several else ""),
                "difference": percent(c.difference),
                "bootstrap": span(c.bootstrap),
                "win/tie/loss": f"{c.wins}/{c.ties}/{c.losses}",
            }
        )
    return _without_constant(rows, ("data", "queries"))


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values, differences as shares."""
    c = comparison
    half = c.difference.half_width
    return {
        "dataset": c.second.dataset,
        "spec": c.second.spec,
        "first": {"strategy": c.first.strategy, "options": c.first.options, "encoder": c.first.encoder},
        "second": {"strategy": c.second.strategy, "options": c.second.options, "encoder": c.second.encoder},
        "difference": c.difference.mean,
        "half_width": None if math.isnan(half) else half,
        "episodes": c.difference.n,
        "bootstrap": None if math.isnan(c.bootstrap[0]) else list(c.bootstrap),
        "wins": c.wins,
        "ties": c.ties,
        "losses": c.losses,
    }


def text_table(rows: Sequence[dict[str, str]], width: int = WIDTH) -> str:
    """Lay rows out in columns; names are shortened in the middle until a line has at most `width` characters."""
    if not rows:
        return "nothing to show"
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(len(line[c]) for line in lines) for c in range(len(lines[0]))]
    while sum(widths) + 2 * (len(widths) - 1) > width:
        words = [c for c, name in enumerate(lines[0]) if name in WORDS and widths[c] > SHORTEST]
        widest = max(words or range(len(widths)), key=lambda c: widths[c])
        widths[widest] -= 1
    return "\n".join(
        "  ".join(_fit(cell, room) for cell, room in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _fit(cell: str, width: int) -> str:
    if len(cell) <= width:
        return cell.ljust(width)
    head = (width - 1) // 2
    return f"{cell[:head]}~{cell[len(cell) - (width - 1 - head) :]}"
