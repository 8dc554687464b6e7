"""fewshot duplicates: pairs of pictures of an index that are nearly the same."""

from __future__ import annotations

import json

import click

from fewshot.cli.index import DEVICE, JSON_FLAG, check_device


@click.command()
@click.argument("index", metavar="INDEX")
@click.option(
    "--threshold", default=0.95, show_default=True, type=click.FloatRange(-1, 1), help="Least cosine of a pair."
)
@DEVICE
@JSON_FLAG
def duplicates(index: str, threshold: float, device: str, as_json: bool) -> None:
    """List pictures of an index that are nearly the same.

    One pair a line: cosine and two paths. Identical files have cosine 1. With --json, one object a line.
    """
    from fewshot.duplicates import duplicate_paths
    from fewshot.kept_index import open_index
    from fewshot.store import Store

    check_device(device)
    count = 0
    with Store.open(index) as store:
        for first, second, cosine in duplicate_paths(store, open_index(store, device), threshold):
            count += 1
            if as_json:
                click.echo(json.dumps({"first": first, "second": second, "cosine": round(cosine, 6)}))
            else:
                click.echo(f"{cosine:.4f}  {first}  {second}")
    click.echo(f"{count} pairs with a cosine of {threshold:g} or more in {index}", err=True)
