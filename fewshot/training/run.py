"""From labelled pictures to a file of weights: reads, trains, goes on after a stop, writes weights, log and curve."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.datasets import ImageSource, Items
from fewshot.embed_items import items_digest
from fewshot.embedding import Skipped
from fewshot.encoders import convnet, load_encoder
from fewshot.errors import ImageError
from fewshot.images import open_image
from fewshot.modelfile import write_model
from fewshot.provenance import versions
from fewshot.training import episodic, supervised
from fewshot.training.adapt import choose
from fewshot.training.bank import paper_and_spread, read_bank
from fewshot.training.curve import write_curve
from fewshot.training.journal import Journal
from fewshot.training.pictures import read_pictures

Say = Callable[[str], None]
LOOKED_AT = 200  # pictures that tell whether the data is grey


def run_episodic(
    items: Items, options: Mapping[str, Any], out: Path, device: torch.device, force: bool, say: Say
) -> dict[str, Any]:
    """Train a small network from scratch on `items` and write it to `out`; return what stands in its header.

    Raises
    ------
    InvalidOption
        for an option out of its range.
    DataError
        when too few classes have enough pictures.
    FormatError
        when there is a checkpoint of another run and `force` is false.
    OutputError
        when a file cannot be written.
    """
    recipe = episodic.Recipe(**options)
    plan = convnet.Plan(recipe.size, recipe.widths, channels_of(items.sources), 255.0, 1.0)
    bank, skipped = read_bank(items, lambda image: convnet.prepare(image, plan), recipe.shot + recipe.query)
    _report(skipped, say)
    paper, spread = paper_and_spread(bank.pixels)
    plan = dataclasses.replace(plan, paper=paper, spread=spread)
    say(f"{len(bank.members)} classes in {len(bank.groups)} groups, {len(bank.pixels)} pictures, on {device}")
    about = _about(recipe, items, device)
    journal = Journal(out, about, fresh=force)
    network = episodic.train(bank, recipe, plan, journal, device, say)
    meta = {"kind": "convnet", "plan": dataclasses.asdict(plan), **about}
    return _finish(out, network.state_dict(), meta, journal, force)


def run_supervised(
    items: Items, options: Mapping[str, Any], out: Path, device: torch.device, force: bool, say: Say
) -> dict[str, Any]:
    """Train an encoder further on `items` and write what changed to `out`; return what stands in its header.

    Raises
    ------
    InvalidOption
        for an option out of its range.
    MissingInput
        for an encoder that cannot be trained.
    DataError
        when there are too few classes, or none with two pictures.
    FormatError
        when there is a checkpoint of another run and `force` is false.
    OutputError
        when a file cannot be written.
    """
    recipe = supervised.Recipe(**options)
    encoder = load_encoder(recipe.encoder, str(device))
    body = encoder.body()
    choice = choose(body, recipe.freeze, recipe.lora)
    about = {**_about(recipe, items, device), "base": encoder.name, "base_fingerprint": encoder.fingerprint}
    journal = Journal(out, about, fresh=force)
    pictures, skipped = read_pictures(items, encoder, body, choice.first)
    _report(skipped, say)
    names = sum(len(stage) for stage in choice.stages)
    say(f"{len(pictures.classes)} classes, {len(pictures.labels)} pictures, {names} tensors to train, on {device}")
    tensors = supervised.train(supervised.Net(body, choice, device), pictures, recipe, journal, say)
    if not tensors:
        say("no epoch was better than the frozen features: the weights are those of the base")
    return _finish(out, tensors, {"kind": "encoder", **about}, journal, force)


def channels_of(sources: Sequence[ImageSource]) -> int:
    """Return 1 where the pictures are grey, else 3, from some of them spread over all."""
    step = max(1, len(sources) // LOOKED_AT)
    for source in sources[::step]:
        try:
            bands = open_image(source).split()
        except ImageError:
            continue
        if any(band.tobytes() != bands[0].tobytes() for band in bands[1:]):
            return 3
    return 1


def _about(recipe: episodic.Recipe | supervised.Recipe, items: Items, device: torch.device) -> dict[str, Any]:
    return {
        "recipe": dataclasses.asdict(recipe),
        "data": items_digest(items.sources),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def _report(skipped: Sequence[Skipped], say: Say) -> None:
    for skip in skipped:
        say(f"skipped {skip.source if isinstance(skip.source, str | Path) else skip.position}: {skip.reason}")


def _finish(
    out: Path, tensors: Mapping[str, Tensor], meta: dict[str, Any], journal: Journal, force: bool
) -> dict[str, Any]:
    wall, cpu = journal.spent()
    meta = {**meta, "wall_s": round(wall), "cpu_s": round(cpu)}
    write_model(out, tensors, meta, overwrite=force, kind="weights")
    write_curve(out.with_name(out.name + ".svg"), journal.lines())
    journal.finish()
    return meta
