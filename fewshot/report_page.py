"""A report as one HTML page that holds its figures and pictures and needs neither network nor JavaScript."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from fewshot.errors import OutputError
from fewshot.reanalysis import Look
from fewshot.report import Report, Result, check_output, result_to_dict
from fewshot.report_look import look_section
from fewshot.report_sections import (
    accuracy_figures,
    comparison_table,
    cost_table,
    difference_table,
    focus_of,
    focus_section,
    source_section,
)
from fewshot.svg import check_matplotlib

Looker = Callable[[Result, Sequence[Result]], Look | str]  # analyses a result's data, or says why it cannot


def render_page(report: Report, look: Looker, *, strategy: str = "") -> str:
    """Return the page; names are escaped.

    Parameters
    ----------
    look:
        called for each data set with one result and all of them; what it returns fills the sections that need the data.
    strategy:
        the strategy to look at more closely; else the most accurate one.

    Raises
    ------
    OutputError
        when matplotlib is not installed.
    """
    import jinja2
    from markupsafe import Markup

    check_matplotlib()
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in report.results:
        grouped.setdefault((result.dataset, result.data), []).append(result)
    sections = []
    titles = [title for title, _ in grouped]
    for number, (title, results) in enumerate(zip(titles, grouped.values(), strict=True)):
        name = f"d{number}"
        if titles.count(title) > 1:  # other items of the same data
            title += f" ({', '.join(sorted({r.spec['split'] or 'all splits' for r in results}))})"
        focus = focus_of(results, strategy)
        found = look(focus, results)
        sections.append(
            {
                "name": name,
                "title": title,
                "encoders": sorted({r.encoder for r in results}),
                "transductive": any(r.transductive for r in results),
                "figures": accuracy_figures(name, results),
                "comparison": comparison_table(results),
                "differences": difference_table(results),
                "cost": cost_table(results),
                "sources": source_section(results),
                "focus": focus_section(name, focus),
                "missing": found if isinstance(found, str) else "",
                "look": None if isinstance(found, str) else look_section(name, found),
            }
        )
    loader = jinja2.PackageLoader("fewshot", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["drawing"] = Markup  # what `draw_svg` made, in which matplotlib escaped the names
    return environment.get_template("report.html").render(sections=sections, count=len(report.results))


def write_page(file: Path, page: str, *, overwrite: bool = False) -> None:
    """Write the page whole or not at all.

    Raises
    ------
    OutputExists, OutputError
        as `check_output` does, and when it cannot be written.
    """
    check_output(file, overwrite=overwrite)
    part = file.with_name(file.name + ".part")
    try:
        part.write_text(page, encoding="utf-8", errors="replace")
        part.replace(file)
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror}; give --html another file") from error


def merged(reports: Sequence[Report]) -> Report:
    """Put the results of several reports into one, each result once."""
    results = {json.dumps(result_to_dict(r), sort_keys=True): r for report in reports for r in report.results}
    return Report(tuple(results.values()))
