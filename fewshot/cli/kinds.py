"""fewshot index tune, and the options that say which kind of index is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fewshot.index_plan import Wanted

KIND = click.option(
    "--kind", help="auto, exact, fast, ivf, hnsw, pq, sq, or a FAISS factory string.  [default: the index's, or auto]"
)
RECALL = click.option("--recall", type=float, help="Share of the true ten nearest to find.  [default: 0.999]")
MEMORY = click.option("--memory", metavar="SIZE", help="Memory that searching may take, e.g. 500MB.  [default: any]")


def set_kind(kind: str | None, recall: float | None, memory: str | None) -> Wanted | None:
    """Return what is wanted, or None when none of it was said."""
    if kind is None and recall is None and memory is None:
        return None
    from fewshot.index_plan import Wanted, read_size

    plain = Wanted()
    return Wanted(
        plain.kind if kind is None else kind,
        plain.recall if recall is None else recall,
        None if memory is None else read_size(memory),
    )


@click.command()
@click.argument("index", metavar="INDEX")
@KIND
@RECALL
@MEMORY
def tune(index: str, kind: str | None, recall: float | None, memory: str | None) -> None:
    """Choose how an index searches: build it anew, of another kind or for another recall, and measure it.

    `auto` takes size, memory and recall into account. What it will need is told before it is built. The embeddings stay
    as they are, and scores are exact whatever the kind.
    """
    from fewshot.index_plan import plan, wanted_of
    from fewshot.kept_index import rebuild_index
    from fewshot.store import Store

    with Store.open(index, write=True) as store:
        wanted = set_kind(kind, recall, memory) or wanted_of(store)
        click.echo(f"building {plan(wanted, store.rows, store.dim)}", err=True)
        facts = rebuild_index(store, wanted).facts
    click.echo(f"{index}: {facts}")
