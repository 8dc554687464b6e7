"""fewshot finetune: train an encoder further, or a small one from scratch by episodes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from fewshot.cli.task_options import given_path
from fewshot.errors import InvalidOption, OutputError, OutputExists


@click.command()
@click.option("--data", required=True, metavar="NAME[=PATH]", help="Labelled pictures: a folder, a table or a data set.")
@click.option("--out", type=given_path, required=True, metavar="WEIGHTS", help="File to write; use finetuned:WEIGHTS.")
@click.option("--episodic", is_flag=True, help="Train a small network from scratch by episodes.")
@click.option("--way", type=int, metavar="N", help="Classes an episode.  [default: 60]")
@click.option("--shot", type=int, metavar="N", help="Examples a class.  [default: 1]")
@click.option("--query", type=int, metavar="N", help="Queries a class.  [default: 3]")
@click.option("--group", type=int, metavar="N", help="Classes from one group GROUP/CLASS.  [default: 20]")
@click.option("--steps", type=int, metavar="N", help="Episodes to train for.  [default: 6000]")
@click.option("--size", type=int, metavar="PIXELS", help="Side of the input.  [default: 48]")
@click.option("--widths", metavar="N,...", help="Channels of each convolution.  [default: 32,64,128,256]")
@click.option("--symmetry", metavar="none|rotations|all", help="Turned (and mirrored) pictures as classes.")
@click.option("--jitter", type=float, metavar="X", help="Strength of small turns and shifts.  [default: 1]")
@click.option("--rate", type=float, metavar="X", help="Largest learning rate.")
@click.option("--decay", type=float, metavar="X", help="Weight decay.")
@click.option("--hold-out", type=float, metavar="SHARE", help="Share held out to validate on.  [default: 0.15]")
@click.option("--seed", type=int, metavar="N", help="Seed of every draw.  [default: 0]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to compute.")
@click.option("--force", is_flag=True, help="Replace WEIGHTS, and forget a checkpoint of an earlier run.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object about the weights.")
def finetune(
    data: str, out: Path, episodic: bool, device: str, force: bool, as_json: bool, widths: str | None, **values: Any
) -> None:
    """Train an encoder further, or a small one from scratch.

    A run that was stopped goes on from WEIGHTS.checkpoint when the same command is given again. WEIGHTS.jsonl is its
    log, WEIGHTS.svg its curve.
    """
    if out.exists() and not force:
        raise OutputExists(f"{out} exists already; choose another name, or pass --force to replace it")
    if not out.parent.is_dir() or out.is_dir():
        raise OutputError(f"cannot write {out}: it is a folder, or there is no folder {out.parent}")
    from fewshot.arrays import pick_device
    from fewshot.cli.bench import dataset_of_word
    from fewshot.registry import registry
    from fewshot.training.run import run_episodic

    name, path = dataset_of_word(data)
    given = {key: value for key, value in values.items() if value is not None}
    if widths is not None:
        given["widths"] = tuple(_number(word) for word in widths.split(","))
    about = run_episodic(
        registry().dataset(name)().load(path), given, out, pick_device(device), force, lambda t: click.echo(t, err=True)
    )
    click.echo(json.dumps(about) if as_json else f"saved {out}; use it as --encoder finetuned:{out}")


def _number(word: str) -> int:
    if not word.strip().isdigit():
        raise InvalidOption(f"--widths wants numbers such as 32,64,128,256, got {word!r}")
    return int(word)
