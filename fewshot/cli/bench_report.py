"""fewshot bench report: results as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fewshot.reanalysis import Look, Place
    from fewshot.report import Report, Result


@click.command("report")
@click.argument("results", type=Path, nargs=-1, required=True, metavar="RESULT...")
@click.option("--html", "html_file", type=Path, required=True, metavar="FILE", help="Write the page here.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("-s", "--strategy", default="", metavar="NAME", help="Whose mistakes to show.  [default: the best one's]")
@click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME[=PATH]", help="Where a data set is now; repeatable."
)
@click.option("--numbers-only", is_flag=True, help="Leave out what needs the data: pictures, the map, influence.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Seed of the task that is drawn."
)
@click.option("--cache", type=Path, metavar="DIR", help="Where embeddings are kept.  [default: ~/.cache/fewshot/bench]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to embed.")
def report(
    results: tuple[Path, ...],
    html_file: Path,
    force: bool,
    strategy: str,
    datasets: tuple[str, ...],
    numbers_only: bool,
    seed: int,
    cache: Path | None,
    device: str,
) -> None:
    """Write results of `bench run` as one HTML page with figures and pictures."""
    from fewshot.cli.bench import dataset_of_word, default_cache
    from fewshot.errors import DataError, unknown
    from fewshot.report import load_report
    from fewshot.report_page import merged

    check_html(html_file, overwrite=force)
    places = [dataset_of_word(word) for word in datasets]
    found = merged([load_report(path) for path in results])
    if not found.results:
        raise DataError(f"{', '.join(map(str, results))}: no results to show")
    if strategy and strategy not in {r.strategy for r in found.results}:
        raise unknown("strategy of these results", strategy, {r.strategy for r in found.results})
    reason = "--numbers-only was given" if numbers_only else ""
    options: dict[str, Any] = {"device": device, "cache": cache or default_cache(), "seed": seed}
    write_html(html_file, found, overwrite=force, strategy=strategy, places=places, reason=reason, **options)


def check_html(file: Path, *, overwrite: bool) -> None:
    """Make sure that a page can be made and written before the work is done."""
    from fewshot.report import check_output
    from fewshot.svg import check_matplotlib

    check_output(file, overwrite=overwrite)
    check_matplotlib()


def write_html(
    file: Path,
    found: Report,
    *,
    overwrite: bool = False,
    strategy: str = "",
    places: Sequence[Place] = (),
    reason: str = "",
    **options: Any,
) -> None:
    """Write the page of a report; a `reason` leaves out what needs the data, and says why."""
    from fewshot.report_page import render_page, write_page

    def look(result: Result, others: Sequence[Result]) -> Look | str:
        if reason:
            return reason
        click.echo(f"looking at {result.dataset} with {result.strategy}", err=True)
        return look_or_reason(result, places, others=others, **options)

    write_page(file, render_page(found, look, strategy=strategy), overwrite=overwrite)
    click.echo(f"wrote {file}", err=True)


def look_or_reason(result: Result, places: Sequence[Place], **options: Any) -> Look | str:
    """Analyse the data of a result; where that cannot be done, say why, here and in the page."""
    from fewshot.errors import FewshotError
    from fewshot.reanalysis import reanalyse

    try:
        return reanalyse(result, places, **options)
    except FewshotError as error:
        click.echo(f"{result.dataset}: without pictures and map: {error}", err=True)
        return str(error)
