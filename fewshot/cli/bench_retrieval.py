"""fewshot bench retrieval: how well encoders find more of the same."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("retrieval")
@click.option(
    "--dataset", "datasets", multiple=True, required=True, metavar="NAME[=PATH]", help="Data set; repeatable."
)
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="Encoder; repeatable.  [default: lite]")
@click.option("--split", default="", metavar="NAME", help="Only the items of this split.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.option("--cache", type=Path, metavar="DIR", help="Where embeddings are kept.  [default: ~/.cache/fewshot/bench]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to compute.")
def retrieval(
    datasets: tuple[str, ...], encoders: tuple[str, ...], split: str, as_json: bool, cache: Path | None, device: str
) -> None:
    """Search with every item among all others; one row an encoder: recall@k and mAP."""
    from fewshot.arrays import pick_device
    from fewshot.bench import data_title, embedded, of_splits
    from fewshot.cli.bench import dataset_of_word, default_cache
    from fewshot.episodes import EpisodeSpec
    from fewshot.registry import registry
    from fewshot.report_table import percent, text_table
    from fewshot.retrieval import retrieval as measure

    where, found = pick_device(device), []
    for name, path in map(dataset_of_word, datasets):
        items = of_splits(registry().dataset(name)().load(path), [EpisodeSpec(split=split)])
        title, kept = data_title(name, path), cache or default_cache()
        for features, _ in embedded(title, items, encoders or ("lite",), str(where), kept, _say):
            found.append(measure(features, split=split, device=where))
    if as_json:
        click.echo(json.dumps([one.to_json() for one in found], indent=2))
        return
    rows = []
    for one in found:
        row = {"data": one.dataset, "encoder": one.encoder, "items": str(one.items), "dim": str(one.dim)}
        rows.append(row | {key: percent(value) for key, value in one.metrics.items()})
    click.echo(text_table(rows))
    click.echo("\nin %, mean with 95 % half width; each item searches all the others by cosine")


def _say(note: str) -> None:
    click.echo(note, err=True)
