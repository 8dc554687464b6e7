"""fewshot fit: learn a classifier and save it to one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from fewshot.cli.classify import report_skipped
from fewshot.cli.task_options import given_path, learn, task_options
from fewshot.errors import OutputError, OutputExists


@click.command()
@task_options
@click.option("--out", type=given_path, required=True, metavar="MODEL", help="File to write.")
@click.option("--force", is_flag=True, help="Replace MODEL if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object about the model.")
def fit(out: Path, force: bool, as_json: bool, **task: Any) -> None:
    """Learn a classifier and save it for `classify --model`."""
    if out.exists() and not force:
        raise OutputExists(f"{out} exists already; choose another name, or pass --force to replace it")
    if out.is_dir():
        raise OutputExists(f"{out} is a folder; give --out a file")
    if not out.parent.is_dir():  # said now, before a long fit that would be lost
        raise OutputError(f"cannot write {out}: no folder {out.parent}; make it, or choose another --out")
    classifier = learn(**task)
    classifier.save(out, overwrite=force)
    report_skipped(classifier.skipped)
    assert classifier.strategy is not None
    about = {"model": str(out), "strategy": classifier.strategy.name, "encoder": classifier.encoder.name}
    if as_json:
        click.echo(json.dumps({**about, "classes": list(classifier.classes), "bytes": out.stat().st_size}))
    else:
        click.echo(
            f"saved {out}: {about['strategy']} on {about['encoder']}, {len(classifier.classes)} classes, "
            f"{out.stat().st_size:,} bytes"
        )
