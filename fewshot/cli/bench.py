"""fewshot bench run | list | compare: measure strategies and encoders on many small tasks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fewshot.cli import bench_report, bench_retrieval
from fewshot.errors import DataError, InvalidOption

if TYPE_CHECKING:
    from fewshot.suite import Run, Suite

STRATEGIES = ("prototypical",)


@click.group()
def bench() -> None:
    """Measure strategies and encoders on many small tasks."""


@bench.command("run")
@click.argument("suite", type=Path, required=False)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME[=PATH]", help="Data set, or a path; repeatable.")
@click.option("-s", "--strategy", "strategies", multiple=True, metavar="NAME[:K=V,...]", help="Strategy; repeatable.")
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="Encoder; repeatable.  [default: lite]")
@click.option("--way", metavar="N,...", help="Classes an episode: numbers, ranges (2-5) or all.  [default: 5]")
@click.option("--shot", metavar="N,...", help="Examples a class: numbers or ranges.  [default: 5]")
@click.option("--query", type=int, metavar="N", help="Queries a class; 0 for all that is left.  [default: 15]")
@click.option("--episodes", type=int, metavar="N", help="Episodes.  [default: 600]")
@click.option("--seed", metavar="N,...", help="Seed of the draw.  [default: 0]")
@click.option("--marginal", metavar="NAME,...", help="Spread of the queries: balanced, dirichlet or longtail.")
@click.option("--split", metavar="NAME[>NAME]", help="Split the items come from, or support's and queries' ones.")
@click.option("--set", "settings", multiple=True, metavar="K=V", help="Any other setting of the episodes.")
@click.option("--calibrate", is_flag=True, help="Scale probabilities by a leave-one-out temperature.")
@click.option("--episodes-from", type=Path, metavar="FILE", help="Run the episodes of this file instead of drawing.")
@click.option("--save-episodes", type=Path, metavar="DIR", help="Write the episodes here for others to run.")
@click.option("--json", "json_file", type=Path, metavar="FILE", help="Write the report here; a stopped run goes on.")
@click.option("--html", "html_file", type=Path, metavar="FILE", help="Write the results as a page too.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--cache", type=Path, metavar="DIR", help="Keep embeddings here.  [default: ~/.cache/fewshot/bench]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to compute.")
def run(
    suite: Path | None,
    datasets: tuple[str, ...],
    strategies: tuple[str, ...],
    encoders: tuple[str, ...],
    settings: tuple[str, ...],
    episodes_from: Path | None,
    save_episodes: Path | None,
    calibrate: bool,
    json_file: Path | None,
    html_file: Path | None,
    force: bool,
    cache: Path | None,
    device: str,
    **numbers: Any,
) -> None:
    """Run a suite file, or strategies on data sets, and print a table."""
    from fewshot.bench import run_suite
    from fewshot.cli.cells import Cells
    from fewshot.report import check_output, save_report
    from fewshot.report_table import report_lines
    from fewshot.suite import read_suite

    given = [datasets, strategies, encoders, settings, calibrate, *(v for v in numbers.values() if v is not None)]
    if (suite is None) == (not datasets):
        raise InvalidOption("give either a SUITE file or --dataset")
    if suite is not None and any(given):
        raise InvalidOption("a SUITE file says it all: options for data, strategies and episodes do not go with it")
    if json_file is not None:
        check_output(json_file, overwrite=force)
    if html_file is not None:
        bench_report.check_html(html_file, overwrite=force)
    plan = read_suite(suite) if suite else suite_of_words(datasets, strategies, encoders, settings, numbers, calibrate)
    journal = None if json_file is None else json_file.with_name(json_file.name + ".cells")
    cache = cache or default_cache()
    with Cells() as cells:
        report = run_suite(
            plan,
            device=device,
            cache=cache,
            journal=journal,
            episodes_from=episodes_from,
            save_episodes=save_episodes,
            say=cells.say,
            progress=cells.advance,
        )
    for line in report_lines(report):
        click.echo(line)
    if json_file is not None and journal is not None:
        save_report(json_file, report, overwrite=force)
        journal.unlink(missing_ok=True)
        click.echo(f"wrote {json_file}", err=True)
    if html_file is not None:
        bench_report.write_html(html_file, report, overwrite=force, device=device, cache=cache)


def default_cache() -> Path:
    """Folder for embeddings, where the system keeps what can be made again."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "fewshot" / "bench"


def suite_of_words(
    datasets: tuple[str, ...],
    strategies: tuple[str, ...],
    encoders: tuple[str, ...],
    settings: tuple[str, ...],
    numbers: Mapping[str, Any],
    calibrate: bool,
) -> Suite:
    """Build a suite from the options of the command line."""
    from fewshot.compose import parse_strategy
    from fewshot.options import split_pairs
    from fewshot.suite import Run, Suite, check_names, specs

    values: dict[str, Any] = {k: _json_value(v) for k, v in split_pairs(settings).items()}
    for key, value in numbers.items():
        if value is not None:
            values[key] = _several(key, value) if isinstance(value, str) and key != "split" else value
    chosen = tuple(parse_strategy(s) for s in strategies or STRATEGIES)
    runs: list[Run] = []
    for word in datasets:
        name, path = dataset_of_word(word)
        wanted, source = tuple(encoders or ("lite",)), source_word(name, path)
        runs.append(Run(name, path, wanted, chosen, specs(values), calibrate=calibrate, source=source))
        check_names(runs[-1])
    return Suite(tuple(runs))


def source_word(name: str, path: Path | None) -> str:
    """Write data as `dataset_of_word` reads it."""
    return name if path is None else f"{name}={path}"


def _several(key: str, text: str) -> list[str | int]:
    words = [w.strip() for w in text.split(",") if w.strip()]
    if key != "seed":
        return list(words)
    if not all(w.isdecimal() for w in words):
        raise InvalidOption(f"--seed wants numbers, got {text!r}")
    return [int(w) for w in words]


def _json_value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def dataset_of_word(word: str) -> tuple[str, Path | None]:
    """Tell `digits`, `omniglot=DIR`, a folder, a table and a .npz file apart.

    Raises
    ------
    DataError
        for a path that is not there.
    """
    from fewshot.registry import registry
    from fewshot.store import is_store

    name, sign, rest = word.partition("=")
    if name in registry().datasets:
        return name, Path(rest).expanduser() if sign else None
    path = Path(word).expanduser()
    kinds = {".csv": "table", ".jsonl": "table", ".npz": "npz"}
    if path.is_dir():
        return "index" if is_store(path) else "folder", path
    if path.is_file() and path.suffix.lower() in kinds:
        return kinds[path.suffix.lower()], path
    if sign or os.sep in word:
        raise DataError(f"--dataset {word}: neither a data set's name nor a folder, .csv, .jsonl or .npz that is there")
    registry().dataset(name)  # raises, with the nearest name
    return name, None


bench.add_command(bench_report.report)
bench.add_command(bench_retrieval.retrieval)


@bench.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_all(as_json: bool) -> None:
    """List what can be measured: data sets, strategies and encoders."""
    from fewshot.cli.lists import show_table
    from fewshot.registry import registry

    found = registry()
    rows = [{"kind": "data set", "name": n, "about": c.about} for n, c in sorted(found.datasets.items())]
    rows += [{"kind": "strategy", "name": n, "about": c.paper} for n, c in sorted(found.strategies.items())]
    rows += [{"kind": "encoder", "name": n, "about": c.about} for n, c in sorted(found.encoders.items())]
    show_table(rows, as_json)


@bench.command("compare")
@click.argument("first", type=Path)
@click.argument("second", type=Path, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def compare(first: Path, second: Path | None, as_json: bool) -> None:
    """Compare two reports, or the strategies within one, on the episodes they share."""
    from fewshot.compare import compare_reports, compare_within
    from fewshot.report import load_report
    from fewshot.report_table import comparison_json, comparison_rows, table_lines

    a = load_report(first)
    found = compare_within(a) if second is None else compare_reports(a, load_report(second))
    if not found:
        raise DataError("the reports share no episodes: same data, same spec and same seed are needed to compare")
    if as_json:
        click.echo(json.dumps([comparison_json(c) for c in found], indent=2))
        return
    click.echo("second - first, in points of accuracy, with 95 % half width; both met the same episodes\n")
    click.echo("\n".join(table_lines(comparison_rows(found))))
