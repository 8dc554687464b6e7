"""fewshot query: search an index by text or picture."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fewshot.cli.index import DEVICE, JSON_FLAG

if TYPE_CHECKING:
    from fewshot.search import Hit


@click.command()
@click.argument("index", metavar="INDEX")
@click.argument("queries", metavar="TEXT_OR_IMAGE...", nargs=-1, required=True)
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="Pictures to find for each query.")
@click.option(
    "--where",
    multiple=True,
    metavar="label=NAME|path=GLOB",
    help="Only pictures of this label, or whose path or folder matches; repeat a key for either, use both for both.",
)
@click.option("--min-score", type=float, help="Only pictures that score this or more, at most 1.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    help="Write a contact sheet with thumbnails to this file, in place of an earlier one.",
)
@DEVICE
@JSON_FLAG
def query(
    index: str,
    queries: tuple[str, ...],
    top: int,
    where: tuple[str, ...],
    min_score: float | None,
    html: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Search an index by texts or pictures.

    An argument that is an existing file is a picture, any other is a text, unless it is the path of a folder. With
    --json, one object a line.
    """
    from fewshot.search import is_image_query
    from fewshot.sheet import check_replaceable
    from fewshot.store import Store

    labels, globs = _conditions(where)
    for one in queries:  # whatever can be refused is refused before the encoder is loaded
        if not is_image_query(one) and os.path.isdir(one):
            click.echo(f"{one!r} is taken for a text, not for the folder of that name", err=True)
    if html is not None:
        check_replaceable(html)
    with Store.open(index) as store:
        store.check_labels(labels)
    found = _search(index, queries, device, top=top, labels=labels, globs=globs, least=min_score)
    if html is not None:
        from fewshot.sheet import Section, write_sheet

        pictures = [[(hit.path, _caption(hit)) for hit in hits] for hits in found]
        sections = [Section(one, shown) for one, shown in zip(queries, pictures, strict=True)]
        write_sheet(html, f"{index}: {', '.join(queries)}", sections)
        click.echo(f"contact sheet: {html}", err=True)
    for one, hits in zip(queries, found, strict=True):
        _show(one, hits, as_json)


def _conditions(where: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the labels and path globs; a path that starts with neither / nor * is below the current folder."""
    from fewshot.errors import InvalidOption, unknown
    from fewshot.names import storable, stored_globs
    from fewshot.options import split_pairs

    labels, globs = [], []
    for pair in where:
        if "=" not in pair:
            raise InvalidOption(f"--where wants label=NAME or path=GLOB, got {pair!r}")
        for key, value in split_pairs([pair]).items():
            if not value:  # as from "$UNSET"; it would be the whole current folder
                raise InvalidOption(f"--where {pair} names nothing; give label=NAME or path=GLOB")
            if key == "label":
                labels.append(storable(value))
            elif key == "path":
                globs += stored_globs(value)
            else:
                raise unknown("key of --where", key, ["label", "path"])
    return labels, globs


def _search(index: str, queries: tuple[str, ...], device: str, **how: Any) -> list[list[Hit]]:
    import torch

    from fewshot.search import Searcher

    with Searcher(index, device=device) as searcher:
        vectors = torch.stack([searcher.embed(one) for one in queries])  # [Q, D]
        found = searcher.search(vectors, **how)
        globs = how["globs"]
        if globs and not any(found) and not searcher.store.mask(globs=globs).any():
            click.echo(f"no picture's path matches {' or '.join(map(repr, globs))}", err=True)
        click.echo(f"encoder {searcher.encoder.name} on {searcher.encoder.device}", err=True)
    return found


def _caption(hit: Hit) -> str:
    return f"{hit.score:.3f}" + (f" {hit.label}" if hit.label else "")


def _show(text: str, hits: list[Hit], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"query": text, "hits": [dataclasses.asdict(hit) for hit in hits]}))
        return
    click.echo(text)
    for hit in hits:
        click.echo(f"  {hit.score:6.3f}  {hit.label or '-':12}  {hit.path}")
    if not hits:
        click.echo("  nothing found")
