"""fewshot finetune: train an encoder further, or a small one from scratch by episodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fewshot.cli.task_options import given_path
from fewshot.errors import InvalidOption, OutputError, OutputExists

F = TypeVar("F", bound=Callable[..., Any])

FURTHER = (
    click.option("--encoder", metavar="NAME", help="Encoder to train further: lite, timm:... or clip:....  [lite]"),
    click.option("--freeze", metavar="all|none|norm|stages:N", help="Train the last N stages, or norms.  [stages:2]"),
    click.option("--lora", type=int, metavar="R", help="Train low-rank parts of rank R instead of whole tensors."),
    click.option("--epochs", type=int, metavar="N", help="Most passes over the pictures.  [20]"),
    click.option("--batch", type=int, metavar="N", help="Pictures a step.  [32]"),
    click.option("--stage-decay", type=float, metavar="X", help="Rate of a stage against the one above.  [0.5]"),
    click.option("--patience", type=int, metavar="N", help="Epochs without a better one before it stops.  [5]"),
)
EPISODIC = (
    click.option("--way", type=int, metavar="N", help="With --episodic: classes an episode.  [60]"),
    click.option("--shot", type=int, metavar="N", help="With --episodic: examples a class.  [1]"),
    click.option("--query", type=int, metavar="N", help="With --episodic: queries a class.  [3]"),
    click.option("--group", type=int, metavar="N", help="With --episodic: classes from one GROUP/CLASS.  [20]"),
    click.option("--steps", type=int, metavar="N", help="With --episodic: episodes to train for.  [4000]"),
    click.option("--size", type=int, metavar="PIXELS", help="With --episodic: side of the input.  [32]"),
    click.option("--widths", metavar="N,...", help="With --episodic: channels by layer.  [32,64,128,256]"),
    click.option("--symmetry", metavar="NAME", help="With --episodic: none, rotations or all make classes.  [none]"),
    click.option("--jitter", type=float, metavar="X", help="With --episodic: strength of turns and shifts.  [1]"),
)
BOTH = (
    click.option("--rate", type=float, metavar="X", help="Largest learning rate.  [1e-4; --episodic: 2e-3]"),
    click.option("--decay", type=float, metavar="X", help="Weight decay.  [1e-4]"),
    click.option("--hold-out", type=float, metavar="SHARE", help="Share to validate on.  [0.2; --episodic: 0.15]"),
    click.option("--seed", type=click.IntRange(0), metavar="N", help="Seed of every draw.  [0]"),
)


def recipe_options(command: F) -> F:
    """Add the options of both recipes; what is not given arrives as None and has the default of its recipe."""
    for decorate in reversed((*FURTHER, *EPISODIC, *BOTH)):
        command = decorate(command)
    return command


@click.command()
@click.option(
    "--data", required=True, metavar="NAME[=PATH]", help="Labelled pictures: a folder, a table or a data set."
)
@click.option("--split", metavar="NAME", help="Split of the data to train on, where it has any.")
@click.option("--out", type=given_path, required=True, metavar="WEIGHTS", help="File to write; use finetuned:WEIGHTS.")
@click.option("--episodic", is_flag=True, help="Train a small network from scratch by episodes.")
@recipe_options
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to compute.")
@click.option("--force", is_flag=True, help="Replace WEIGHTS, and forget a checkpoint of an earlier run.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object about the weights.")
def finetune(
    data: str, split: str | None, out: Path, episodic: bool, device: str, force: bool, as_json: bool, **values: Any
) -> None:
    """Train an encoder further, or a small one from scratch.

    A run that was stopped goes on from WEIGHTS.checkpoint when the same command is given again. WEIGHTS.jsonl is its
    log, WEIGHTS.svg its curve. Use the result as --encoder finetuned:WEIGHTS.
    """
    _check_place(out, force)
    options = _options(values, episodic)
    from fewshot.arrays import pick_device
    from fewshot.cli.bench import dataset_of_word
    from fewshot.registry import registry
    from fewshot.training.pictures import of_split
    from fewshot.training.run import run_episodic, run_supervised

    name, path = dataset_of_word(data)
    items = of_split(registry().dataset(name)().load(path), split)
    run = run_episodic if episodic else run_supervised
    about = run(items, options, out, pick_device(device), force, lambda text: click.echo(text, err=True))
    line = f"saved {out} after {about['wall_s']} s ({about['cpu_s']} s of CPU); use it as --encoder finetuned:{out}"
    click.echo(json.dumps(about) if as_json else line)


def _check_place(out: Path, force: bool) -> None:
    if out.is_dir():
        raise OutputExists(f"{out} is a folder; give --out a file")
    if out.exists() and not force:
        raise OutputExists(f"{out} exists already; choose another name, or pass --force to replace it")
    if not out.parent.is_dir():  # said now, before long work that would be lost
        raise OutputError(f"cannot write {out}: no folder {out.parent}; make it, or choose another --out")


def _options(values: dict[str, Any], episodic: bool) -> dict[str, Any]:
    """Return the options that were given, unless they belong to the other way of training."""
    other = _names(FURTHER if episodic else EPISODIC)
    given = {key: value for key, value in values.items() if value is not None}
    odd = sorted(other & given.keys())
    if odd:
        flag = "--" + odd[0].replace("_", "-")
        raise InvalidOption(f"{flag} does not go {'with' if episodic else 'without'} --episodic; leave it out")
    if "widths" in given:
        given["widths"] = _numbers(given["widths"])
    return given


def _names(options: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...]) -> set[str]:
    """Names of the values that some options make."""

    def probe() -> None: ...

    for decorate in options:
        decorate(probe)
    return {str(option.name) for option in probe.__click_params__}  # type: ignore[attr-defined]


def _numbers(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise InvalidOption(f"--widths wants numbers such as 32,64,128,256, got {text!r}")
    return tuple(int(word) for word in words)
