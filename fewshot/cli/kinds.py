"""fewshot index tune, and the options that say which kind of index is wanted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fewshot.cli.upkeep import JSON_FLAG

if TYPE_CHECKING:
    from fewshot.index_plan import Wanted
    from fewshot.store import Store

NEARLY = 0.002  # of the recall: so much of it is chance
KIND = click.option(
    "--kind", help="auto, exact, fast, ivf, hnsw, pq, sq, or a FAISS factory string.  [default: the index's, or auto]"
)
RECALL = click.option(
    "--recall", type=float, help="Share of the true ten nearest to find.  [default: the index's, or 0.999]"
)
MEMORY = click.option(
    "--memory", metavar="SIZE", help="Memory that searching may take, e.g. 500MB.  [default: the index's, or any]"
)


def set_kind(store: Store | None, kind: str | None, recall: float | None, memory: str | None) -> Wanted | None:
    """Return what is wanted of an index, what was not said as it is there; None when nothing was said."""
    if kind is None and recall is None and memory is None:
        return None
    from fewshot.index_plan import KINDS, Wanted, read_size, wanted_of

    before = Wanted() if store is None else wanted_of(store)
    if kind is not None and kind.lower() in KINDS:  # capitals matter in a factory string only
        kind = kind.lower()
    return Wanted(
        before.kind if kind is None else kind,
        before.recall if recall is None else recall,
        before.memory if memory is None else read_size(memory),
    )


@click.command()
@click.argument("index", metavar="INDEX")
@KIND
@RECALL
@MEMORY
@JSON_FLAG
def tune(index: str, kind: str | None, recall: float | None, memory: str | None, as_json: bool) -> None:
    """Choose how an index searches: build it anew, of another kind or for another recall, and measure it.

    `auto` takes size, memory and recall into account. What it will need is told before it is built. The embeddings stay
    as they are, and scores are exact whatever the kind.
    """
    from fewshot.index_plan import memory_of, plan, wanted_of
    from fewshot.kept_index import rebuild_index
    from fewshot.store import Store

    with Store.open(index, write=True) as store:
        wanted = set_kind(store, kind, recall, memory) or wanted_of(store)
        click.echo(f"building {plan(wanted, store.rows, store.dim)}", err=True)
        facts = rebuild_index(store, wanted).facts
    about = {"index": index, "search": str(facts), "memory": memory_of(facts, store.dim), "recall@10": facts.recall}
    click.echo(json.dumps(about) if as_json else f"{index}: {facts}")
    if facts.recall.get("pictures", 1) < wanted.recall - NEARLY:
        click.echo(f"this is less than the recall of {wanted.recall:g} asked for; another kind may reach it", err=True)
