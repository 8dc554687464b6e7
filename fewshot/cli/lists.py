"""fewshot plugins | strategies | encoders | datasets: what there is, for people and with --json for programs."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from typing import Any

import click

JSON_FLAG = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def show_table(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as JSON, or as a table whose columns are the keys of the first row.

    A table is folded to the width of a terminal; elsewhere, as through a pipe, each row is one whole line.
    """
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("none")
        return
    if not sys.stdout.isatty():
        cells = [list(rows[0]), *([" ".join(_cell(value).split()) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column == "name")  # names are there to be copied
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console(highlight=False, markup=False).print(table)


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


@click.command()
@JSON_FLAG
def plugins(as_json: bool) -> None:
    """List the plugins, what they hook into, and which are broken."""
    from fewshot.registry import COMMAND_GROUP, Registry, load_group, registry

    commands = Registry()
    load_group(commands, COMMAND_GROUP, click.Group())
    show_table([dataclasses.asdict(row) for row in [*registry().plugins, *commands.plugins]], as_json)


@click.command()
@JSON_FLAG
def encoders(as_json: bool) -> None:
    """List the encoders that plugins register."""
    from fewshot.registry import registry

    found = sorted(registry().encoders.items())
    show_table([{"name": n, "takes": sorted(c.modalities), "about": c.about} for n, c in found], as_json)


@click.command()
@JSON_FLAG
def datasets(as_json: bool) -> None:
    """List the datasets that plugins register."""
    from fewshot.registry import registry

    show_table([{"name": n, "about": c.about} for n, c in sorted(registry().datasets.items())], as_json)


@click.group(invoke_without_command=True)
@JSON_FLAG
@click.pass_context
def strategies(ctx: click.Context, as_json: bool) -> None:
    """List the strategies, or show one with its options."""
    if ctx.invoked_subcommand is None:
        from fewshot.registry import registry

        show_table([_strategy_row(cls) for _, cls in sorted(registry().strategies.items())], as_json)


def _strategy_row(cls: Any) -> dict[str, Any]:
    transductive = "unlabeled" in cls.needs
    return {
        "name": cls.name,
        "needs": sorted(cls.needs),
        "transductive": transductive,
        "speed": cls.speed,
        "paper": cls.paper,
    }


@strategies.command("show")
@click.argument("name")
@JSON_FLAG
def show(name: str, as_json: bool) -> None:
    """Show one strategy: paper, what it needs, its formula, and every option with its default."""
    from fewshot.options import option_infos
    from fewshot.registry import registry

    cls = registry().strategy(name)
    infos = [dataclasses.asdict(info) for info in option_infos(cls)]
    row = {**_strategy_row(cls), "uses": sorted(cls.uses), "unseen": cls.unseen}
    fitted = (inspect.getdoc(cls.fit) or "").partition("\n")[0]
    row |= {"docs": inspect.getdoc(cls) or "", "fit": fitted, "options": infos}
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    click.echo(f"{cls.name}: {inspect.getdoc(inspect.getmodule(cls)) or ''}\n\n{row['docs']}\n")
    for key in ("paper", "needs", "uses", "unseen", "transductive", "speed", "fit"):
        click.echo(f"{key + ':':14}{_cell(row[key]) or '-'}")
    click.echo("\noptions (-o name=value):" if infos else "\nno options")
    for info in infos:
        bounds = f" in {info['range']}" if info["range"] else ""
        click.echo(f"  {info['name']}={info['default']}  ({info['type']}{bounds}) {info['help']}")
