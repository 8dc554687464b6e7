"""fewshot find: the pictures of an index that a fitted classifier scores highest for each class."""

from __future__ import annotations

import dataclasses
import json
import math

import click

from fewshot.cli.index import DEVICE, JSON_FLAG
from fewshot.errors import InvalidOption


@click.command()
@click.argument("index", metavar="INDEX")
@click.option("--model", required=True, metavar="MODEL", help="A classifier that `fewshot fit` saved.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Only this class; may be repeated.")
@click.option("--top", default=1000, show_default=True, type=click.IntRange(1), help="Pictures to find for each class.")
@click.option("--min-probability", default=0.0, type=click.FloatRange(0, 1), help="Leave out pictures less likely.")
@DEVICE
@JSON_FLAG
def find(
    index: str,
    model: str,
    classes: tuple[str, ...],
    top: int,
    min_probability: float,
    device: str,
    as_json: bool,
) -> None:
    """Find the pictures of each class in an index, by a fitted classifier.

    Each class of a linear classifier is a query, so that few pictures need to be scored. Best first, by the class's
    score; the probability is among all classes. With --json, one object a line.
    """
    if math.isnan(min_probability):
        raise InvalidOption("--min-probability must be a number, got nan")
    from fewshot.classifier import Classifier
    from fewshot.find import find as find_in
    from fewshot.kept_index import open_index
    from fewshot.store import Store

    with Store.open(index) as store:
        classifier = Classifier.load(model, device=device)
        found = find_in(store, open_index(store, device), classifier, classes=classes, top=top)
    for name, pictures in found.items():
        likely = [picture for picture in pictures if picture.probability >= min_probability]
        if as_json:
            click.echo(json.dumps({"class": name, "pictures": [dataclasses.asdict(picture) for picture in likely]}))
            continue
        click.echo(name)
        for picture in likely:
            click.echo(f"  {picture.probability:6.3f}  {picture.score:8.3f}  {picture.label or '-':12}  {picture.path}")
        if not likely:
            click.echo("  nothing found")
