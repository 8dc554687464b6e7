"""From labelled pictures to a file of weights: reads, trains, goes on after a stop, writes weights, log and curve."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fewshot.datasets import ImageSource, Items
from fewshot.embed_items import items_digest
from fewshot.encoders import convnet
from fewshot.errors import ImageError
from fewshot.images import open_image
from fewshot.modelfile import write_model
from fewshot.provenance import versions
from fewshot.training.bank import paper_and_spread, read_bank
from fewshot.training.episodic import Recipe, train
from fewshot.training.journal import Journal

Say = Callable[[str], None]
LOOKED_AT = 200  # pictures that tell whether the data is grey


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
    recipe = Recipe(**options)
    plan = convnet.Plan(recipe.size, recipe.widths, channels_of(items.sources), 255.0, 1.0)
    bank, skipped = read_bank(items, lambda image: convnet.prepare(image, plan), recipe.shot + recipe.query)
    paper, spread = paper_and_spread(bank.pixels)
    plan = dataclasses.replace(plan, paper=paper, spread=spread)
    for skip in skipped:
        say(f"skipped {skip.source!r}: {skip.reason}")
    say(f"{len(bank.members)} classes in {len(bank.groups)} groups, {len(bank.pixels)} pictures, on {device}")
    about = {
        "recipe": dataclasses.asdict(recipe),
        "data": items_digest(items.sources),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    journal = Journal(out, about, fresh=force)
    network = train(bank, recipe, plan, journal, device, say)
    wall, cpu = journal.spent()
    meta = {"kind": "convnet", "plan": dataclasses.asdict(plan), **about, "wall_s": round(wall), "cpu_s": round(cpu)}
    write_model(out, network.state_dict(), meta, overwrite=force, kind="weights")
    journal.finish()
    return meta
