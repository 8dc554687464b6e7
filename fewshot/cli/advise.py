"""fewshot advise: what to transfer from a source to a target, when, and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fewshot.cli.task_options import MAP, crossing, given_path

if TYPE_CHECKING:
    from fewshot.transfer.sides import Side
    from fewshot.transfer.trial import Pair
    from fewshot.transfer.what import Suitability

DEPTHS = ("lite", "lite:stage7", "lite:stage6", "lite:stage5")  # compared unless --encoder or an index says otherwise
OF_TEXTS = ("lite",)  # the one of these that takes texts


@click.command()
@click.option("--source", type=given_path, required=True, metavar="DIR|INDEX", help="Labelled examples to learn from.")
@click.option("--target", type=given_path, required=True, metavar="DIR|INDEX", help="Labelled examples of your task.")
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="Encoder to compare; repeatable.")
@click.option("-s", "--strategy", "strategies", multiple=True, metavar="NAME", help="Strategy to try; repeatable.")
@click.option("--rounds", default=4, show_default=True, type=click.IntRange(1), help="Times each item is held out.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of what is held out when.")
@click.option("--other-classes", is_flag=True, help="The source's classes are meant to differ from the target's.")
@MAP
@click.option("--json", "json_file", type=given_path, metavar="FILE", help="Write everything measured as JSON.")
@click.option("--html", "html_file", type=given_path, metavar="FILE", help="Write a page with pictures.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to embed.")
def advise(
    source: Path,
    target: Path,
    encoders: tuple[str, ...],
    strategies: tuple[str, ...],
    rounds: int,
    seed: int,
    other_classes: bool,
    bridge: tuple[Path, Path] | None,
    json_file: Path | None,
    html_file: Path | None,
    force: bool,
    device: str,
) -> None:
    """Say what to transfer from a source, whether it helps, and how.

    Compares encoders for the target without training, measures the gap between the domains, tries strategies with and
    without the source on held-out items of the target, and names the command to run.
    """
    from fewshot.errors import InvalidOption, unknown
    from fewshot.registry import registry
    from fewshot.report import check_output
    from fewshot.report_page import write_page
    from fewshot.svg import check_matplotlib
    from fewshot.transfer.advice import advise as answer
    from fewshot.transfer.page import lines, render
    from fewshot.transfer.sides import holds_texts
    from fewshot.transfer.trial import learns_from_source
    from fewshot.transfer.what import ranked, suitability

    for file in (json_file, html_file):
        if file is not None:
            check_output(file, overwrite=force)
    if json_file is not None and html_file is not None and json_file.resolve() == html_file.resolve():
        raise InvalidOption(f"--json and --html both name {json_file}; give each a file of its own")
    if html_file is not None:
        check_matplotlib()
    for name in strategies:
        if name not in registry().strategies:
            raise unknown("strategy", name, registry().strategies)
    if strategies and not any(learns_from_source(name) for name in strategies):
        raise InvalidOption(f"none of {', '.join(strategies)} learns from a source; name one that does, e.g. -s pooled")
    texts = holds_texts(source) or holds_texts(target)
    pairs = embedded_pairs(source, target, encoders, bridge, other_classes, device)
    scored: list[Suitability] = [suitability(name, pair) for name, pair in pairs.items()]
    best = ranked(scored)[0][0].encoder
    places = (str(source), str(target), *map(str, bridge or ()))
    options = {"strategies": strategies, "rounds": rounds, "seed": seed, "texts": texts}
    advice = answer(pairs[best], scored, encoder=best, places=places, **options)  # type: ignore[arg-type]
    for line in lines(advice):
        click.echo(line)
    if json_file is not None:
        write_page(json_file, json.dumps(advice.to_json(), indent=1) + "\n", overwrite=force)
    if html_file is not None:
        from fewshot.transfer.picture import pictures

        shown = pictures(pairs[best], advice.strategy, seed)
        write_page(html_file, render(advice, shown, str(source), str(target)), overwrite=force)


def alone(source: Side, target: Side, *, quiet: bool) -> Side:
    """Leave out of the source what is in the target too, and say so."""
    from fewshot.transfer.sides import apart

    rest, shared = apart(source, target)
    if shared and not quiet:
        click.echo(f"{shared} items of the source are in the target too, and are left out of the source", err=True)
    return rest


def embedded_pairs(
    source: Path,
    target: Path,
    encoders: tuple[str, ...],
    bridge: tuple[Path, Path] | None,
    other_classes: bool,
    device: str,
) -> dict[str, Pair]:
    """Read both domains in the space of each encoder that is to be compared; an index has but its own.

    Raises
    ------
    FingerprintMismatch
        for indexes of different encoders without a map.
    InvalidOption
        for a map without two indexes, or an encoder that is not the indexes'.
    """
    from fewshot.database import is_store
    from fewshot.encoders import load_encoder
    from fewshot.errors import FingerprintMismatch, InvalidOption
    from fewshot.store import Store
    from fewshot.transfer.sides import holds_texts, moved, pair_up, read_index_side, read_labels, read_side
    from fewshot.transfer.trial import check_size

    check_size(pair_up(read_labels(source), read_labels(target), other_classes=other_classes))  # before any embedding
    stores = {path: read_index_side(path) for path in (source, target) if is_store(path)}
    if len(stores) == 2 or (source == target and stores):
        here, there = stores[source], stores[target]
        if bridge:
            here = moved(here, crossing(bridge), there.encoder, there.fingerprint)
        if here.fingerprint != there.fingerprint:
            raise FingerprintMismatch(
                f"source {source} was embedded by {here.encoder!r} ({here.fingerprint}), target {target} by "
                f"{there.encoder!r} ({there.fingerprint}); index both with one encoder, or pass --map"
            )
        if set(encoders) - {there.encoder}:
            raise InvalidOption(f"both sides are indexes made by {there.encoder!r}; leave out --encoder {encoders[0]}")
        return {there.encoder: pair_up(alone(here, there, quiet=False), there, other_classes=other_classes)}
    if bridge:
        raise InvalidOption("--map joins two indexes; give an index as --source and one as --target, or leave it out")
    usual = OF_TEXTS if holds_texts(source) or holds_texts(target) else DEPTHS
    names = encoders or tuple(side.encoder for side in stores.values()) or usual
    pairs: dict[str, Pair] = {}
    loaded = {name: load_encoder(name, device) for name in names}  # a wrong name is said first
    for path, encoder in ((path, encoder) for path in stores for encoder in loaded.values()):
        with Store.open(path) as store:
            store.check_encoder(encoder)
    for name, encoder in loaded.items():
        click.echo(f"embedding with {name}", err=True)
        here, there = (read_side(path, encoder, progress=True) for path in (source, target))
        pairs[name] = pair_up(alone(here, there, quiet=bool(pairs)), there, other_classes=other_classes)
        check_size(pairs[name])  # pictures that cannot be read are gone by now
    return pairs
