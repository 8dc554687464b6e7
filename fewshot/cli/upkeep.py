"""fewshot index verify | repair | compact | export | import | watch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fewshot.build import Counts

INDEX = click.argument("index", metavar="INDEX")
JSON_FLAG = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
DTYPE = click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    help="Numbers of a new index; float16 takes half the space.  [default: float32]",
)


@click.command()
@INDEX
@JSON_FLAG
def verify(index: str, as_json: bool) -> None:
    """Check an index for damage; exit code 1 if there is any."""
    from fewshot.upkeep import verify as look

    problems = look(index)
    if as_json:
        click.echo(json.dumps({"index": index, "problems": problems}))
    else:
        click.echo("\n".join(problems) or f"{index} is whole")
        if problems:
            click.echo(f"mend it with: fewshot index repair {index}", err=True)
    click.get_current_context().exit(1 if problems else 0)


@click.command()
@INDEX
@JSON_FLAG
def repair(index: str, as_json: bool) -> None:
    """Mend a damaged index: what is lost is forgotten, and embedded again by the next build."""
    from fewshot.upkeep import repair as mend

    done = mend(index)
    if as_json:
        click.echo(json.dumps({"index": index, "done": done}))
    else:
        click.echo("\n".join(done) or f"{index} is whole; nothing was changed")


@click.command()
@INDEX
@JSON_FLAG
def compact(index: str, as_json: bool) -> None:
    """Drop the embeddings of removed pictures and give back their space."""
    from fewshot.build import refresh_index
    from fewshot.store import Store
    from fewshot.upkeep import compact as shrink

    with Store.open(index, write=True) as store:
        freed = shrink(store)
        refresh_index(store)
    click.echo(json.dumps({"index": index, "freed": freed}) if as_json else f"{freed} bytes freed in {index}")


@click.command()
@INDEX
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@JSON_FLAG
def export(index: str, target: Path, force: bool, as_json: bool) -> None:
    """Write paths, labels and embeddings to FILE: .npz or .parquet."""
    from fewshot.exchange import export as write
    from fewshot.store import Store

    with Store.open(index) as store:
        count = write(store, target, overwrite=force)
    about = {"index": index, "file": str(target), "pictures": count}
    click.echo(json.dumps(about) if as_json else f"{count} pictures written to {target}")


@click.command(name="import")
@click.argument("source", metavar="FILE|DIR", type=click.Path(path_type=Path))
@click.option("--out", required=True, metavar="INDEX", help="Folder of the new index.")
@click.option(
    "--encoder",
    default="",
    help="Encoder that made the embeddings, to search by text or picture.  [default: the one that FILE names]",
)
@DTYPE
@JSON_FLAG
def import_(source: Path, out: str, encoder: str, dtype: str | None, as_json: bool) -> None:
    """Make an index from embeddings, or from a folder that clip-retrieval wrote.

    FILE is an .npz with `embeddings` [n, D] and `paths` [n], and if there are any `labels` [n], or a .parquet with the
    columns embedding, path and label.
    """
    from fewshot.encoders import load_encoder
    from fewshot.exchange import import_into

    made = load_encoder(encoder, "cpu") if encoder else None
    fingerprint, width = (made.fingerprint, made.dim) if made else ("", None)
    count = import_into(source, out, encoder=encoder, fingerprint=fingerprint, width=width, dtype=dtype or "float32")
    about = {"index": out, "file": str(source), "pictures": count}
    click.echo(json.dumps(about) if as_json else f"{count} pictures imported into {out}")


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True)
@click.option("--out", required=True, metavar="INDEX", help="Folder of the index, made if it is not there.")
@click.option("--encoder", help="Encoder, e.g. lite or clip:ViT-B-32/openai.  [default: the index's, or lite]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--interval", default=5.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between looks.")
def watch(folders: tuple[str, ...], out: str, encoder: str | None, device: str, interval: float) -> None:
    """Keep an index current with folders until interrupted by Ctrl-C."""
    from fewshot.watch import watch as follow

    def tell(what: Counts | str) -> None:
        click.echo(f"{out}: {what}", err=isinstance(what, str))

    def rest(seconds: float) -> None:
        try:
            time.sleep(seconds)
        except KeyboardInterrupt:
            click.echo(f"stopped; {out} is as of the last look", err=True)
            click.get_current_context().exit()

    with kept_on_interrupt(out):
        follow(folders, out, encoder=encoder, device=device, interval=interval, tell=tell, sleep=rest)


@contextmanager
def kept_on_interrupt(index: str) -> Iterator[None]:
    """Say at Ctrl-C what is left of a build, with the exit code that a shell gives it."""
    from fewshot.database import is_store

    try:
        yield
    except KeyboardInterrupt:
        kept = f"what was embedded is kept in {index}: run the same command to go on"
        click.echo(f"\ninterrupted; {kept if is_store(Path(index)) else 'nothing was embedded yet'}", err=True)
        click.get_current_context().exit(130)


COMMANDS = (verify, repair, compact, export, import_, watch)
