"""fewshot index build | add | remove | tune | info, and those of `fewshot.cli.upkeep`."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fewshot.cli import upkeep
from fewshot.cli.kinds import KIND, MEMORY, RECALL, set_kind, tune
from fewshot.errors import InvalidOption

if TYPE_CHECKING:
    from fewshot.build import Counts
    from fewshot.index_file import Facts
    from fewshot.store import Store

SHOWN = 20  # skipped files that `info` lists without --json

ENCODER = click.option("--encoder", help="Encoder, e.g. lite or clip:ViT-B-32/openai.  [default: the index's, or lite]")
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
BATCH = click.option(
    "--batch",
    type=click.IntRange(1),
    help="Pictures encoded at once.  [default: 32, or 256 on a GPU]",
)
JSON_FLAG = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def index() -> None:
    """Build, extend, shrink and describe an index of pictures."""


for command in upkeep.COMMANDS:
    index.add_command(command)


@index.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True)
@click.option("--out", required=True, metavar="INDEX", help="Folder of the index, made if it is not there.")
@ENCODER
@KIND
@RECALL
@MEMORY
@DEVICE
@BATCH
@upkeep.DTYPE
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="local: this machine and all its GPUs; ray: a Ray cluster.",
)
@click.option("--address", help="Of the Ray cluster, e.g. auto or HOST:6379.  [default: a new one on this machine]")
@JSON_FLAG
def build(
    folders: tuple[str, ...],
    out: str,
    encoder: str | None,
    kind: str | None,
    recall: float | None,
    memory: str | None,
    device: str,
    batch: int | None,
    dtype: str | None,
    engine: str,
    address: str | None,
    as_json: bool,
) -> None:
    """Index the pictures under folders, or bring an index up to date with them.

    A picture's label is the folder directly beneath DIR that it lies in. Unchanged files are not embedded again, files
    that are gone are dropped, and an interrupted build goes on where it stopped when the same command is run again.
    """
    from fewshot.build import build_index, check_sources
    from fewshot.database import is_store
    from fewshot.store import Store

    if address and engine != "ray":
        raise click.UsageError("--address is for --engine ray")
    if address is not None and not address.strip():  # as from "$UNSET"
        raise InvalidOption("--address is empty; name one, or leave it out to start a cluster on this machine")
    cluster = None
    if engine == "ray":
        from fewshot.ray_engine import RayEngine, check

        check(address)
        cluster = RayEngine(address, device=device)
        device = "cpu"  # this process only hands out the work
    check_device(device)
    with Store.open(out) if is_store(Path(out)) else nullcontext() as store:
        wanted = set_kind(store, kind, recall, memory)
        if store is not None and dtype not in (None, store.dtype):
            raise click.UsageError(f"{out} keeps {store.dtype}; to change that, export it and import it with --dtype")
    with upkeep.kept_on_interrupt(out), ExitStack() as stack:
        if cluster is not None and not is_store(Path(out)):  # before an index is begun
            check_sources(folders)
            stack.enter_context(cluster.connected())
        counts = build_index(
            folders,
            out,
            encoder=encoder,
            device=device,
            batch=batch,
            dtype=dtype or "float32",
            engine=cluster,
            progress=True,
            wanted=wanted,
        )
    _tell(out, counts, as_json)


@index.command()
@click.argument("index", metavar="INDEX")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--label", help="Label of these pictures.  [default: their class folder, if any]")
@DEVICE
@BATCH
@JSON_FLAG
def add(index: str, paths: tuple[str, ...], label: str | None, device: str, batch: int | None, as_json: bool) -> None:
    """Add pictures, or folders of pictures, to an index."""
    from fewshot.build import update
    from fewshot.store import Store

    if label is not None and not label.strip():  # as from "$UNSET"
        raise InvalidOption("--label is empty; name one, or leave it out to take the pictures' class folders")
    check_device(device)
    with upkeep.kept_on_interrupt(index), Store.open(index, write=True) as store:
        counts = update(store, paths, label=label, device=device, batch=batch, progress=True)
    _tell(index, counts, as_json)


@index.command()
@click.argument("index", metavar="INDEX")
@click.argument("targets", metavar="[PATH|GLOB]...", nargs=-1)
@click.option("--label", "labels", multiple=True, help="Remove all pictures of this label; may be repeated.")
@JSON_FLAG
def remove(index: str, targets: tuple[str, ...], labels: tuple[str, ...], as_json: bool) -> None:
    """Take pictures out of an index by path, folder, glob or label; the files themselves stay."""
    from fewshot.build import refresh_index
    from fewshot.removal import remove as remove_from
    from fewshot.store import Store

    if not targets and not labels:
        raise click.UsageError("name at least one PATH or GLOB, or a --label")
    with Store.open(index, write=True) as store:
        count = remove_from(store, targets, labels)
        refresh_index(store)
    click.echo(json.dumps({"index": index, "removed": count}) if as_json else f"{count} removed from {index}")


index.add_command(tune)


@index.command()
@click.argument("index", metavar="INDEX")
@JSON_FLAG
def info(index: str, as_json: bool) -> None:
    """Describe an index: its encoder, how many pictures of each label, what was skipped and why, bytes on disk."""
    from fewshot.index_file import current_facts
    from fewshot.index_plan import size
    from fewshot.store import Store

    with Store.open(index) as store:
        search = current_facts(store)
        facts = _facts(store, search)
        skipped = store.skipped()
    if as_json:
        rows = [{"path": path, "reason": reason} for path, reason in skipped]
        recall = search.recall if search else {}
        click.echo(json.dumps({**facts, "recall@10": recall, "skipped": rows}, indent=2))
        return
    labels, memory = facts.pop("labels"), facts["memory"]
    facts["memory"] = size(memory) if isinstance(memory, int) else "-"
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' ') + ':':15}{value}")
    if isinstance(labels, dict) and labels:
        click.echo("labels:")
        for label, count in labels.items():
            click.echo(f"  {count:7}  {label}")
    if skipped:
        click.echo("skipped:" if len(skipped) <= SHOWN else f"skipped, the first {SHOWN} (all with --json):")
        for path, reason in skipped[:SHOWN]:
            click.echo(f"  {path}: {reason}")


def check_device(name: str) -> None:
    """Refuse a device that is not there, also when nothing will be computed on it."""
    if name not in ("auto", "cpu"):  # which need no torch to be known
        from fewshot.arrays import pick_device

        pick_device(name)


def _facts(store: Store, search: Facts | None) -> dict[str, object]:
    from fewshot.index_plan import memory_of
    from fewshot.upkeep import size_on_disk

    labels = store.labels()
    return {
        "index": str(store.path),
        "encoder": store.encoder,
        "fingerprint": store.fingerprint,
        "dimensions": store.dim,
        "numbers": store.dtype,
        "pictures": sum(labels.values()),
        "embeddings": int(store.mask().sum()),
        "unlabelled": labels.get(None, 0),
        "search": str(search) if search else "no index saved yet; the next search or add makes it",
        "memory": memory_of(search, store.dim) if search else None,  # bytes of codes
        "skipped": len(store.skipped()),
        "bytes": size_on_disk(store.path),
        "labels": {name: count for name, count in labels.items() if name is not None},
    }


def _tell(index: str, counts: Counts, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"index": index, **dataclasses.asdict(counts)}))
        return
    click.echo(f"{index}: {counts}")
    if counts.skipped:
        click.echo(f"why files were skipped: fewshot index info {index}", err=True)
