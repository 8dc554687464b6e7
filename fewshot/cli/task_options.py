"""Options that `classify` and `fit` share: what to learn from, and how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fewshot.errors import DataError, InvalidOption

if TYPE_CHECKING:
    from torch import Tensor

    from fewshot.classifier import Classifier
    from fewshot.encoders import Encoder
    from fewshot.transfer.crossmap import CrossMap

F = TypeVar("F", bound=Callable[..., Any])


def given_path(text: str) -> Path:
    """Refuse an empty path, as from "$UNSET", which would be the current folder."""
    if not text:
        raise click.BadParameter("is empty; give a path")
    return Path(text)


MAP = click.option(
    "--map", "bridge", nargs=2, type=given_path, metavar="INDEX INDEX",
    help="Two indexes of the same pictures, by the source's encoder and by the target's.",
)  # fmt: skip
OPTIONS = (
    click.option("--classes", metavar="A,B,C", help="Class names, separated by commas."),
    click.option(
        "--classes-file", type=given_path, metavar="FILE", help="Class names or phrases: .txt, .json, .toml, .csv."
    ),
    click.option("--support", type=given_path, metavar="DIR", help="Examples: a folder a class, or a CSV/JSONL table."),
    click.option(
        "--attributes", type=given_path, metavar="CSV", help="What each class is like: a row of numbers a class."
    ),
    click.option(
        "--unlabeled", type=given_path, multiple=True, metavar="PATH", help="Pictures to adapt to, without labels."
    ),
    click.option(
        "--source", type=given_path, metavar="DIR", help="Labelled examples of another domain to transfer from."
    ),
    MAP,
    click.option("--template", multiple=True, metavar="TEXT", help="Prompt with {} for the class name; repeatable."),
    click.option("-s", "--strategy", metavar="NAME", help="Strategy; see `fewshot strategies`."),
    click.option("-o", "--option", "option_pairs", multiple=True, metavar="K=V", help="Option of the strategy."),
    click.option("--calibrate", is_flag=True, help="Scale probabilities by a leave-one-out temperature."),
    click.option("--encoder", metavar="NAME", help="Encoder; see `fewshot encoders`.  [default: lite]"),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to compute."),
)


def task_options(command: F) -> F:
    """Add the shared options to a command; they arrive as the keyword arguments of `learn`."""
    for decorate in reversed(OPTIONS):
        command = decorate(command)
    return command


def learn(
    *,
    classes: str | None,
    classes_file: Path | None,
    support: Path | None,
    attributes: Path | None,
    unlabeled: tuple[Path, ...],
    source: Path | None,
    bridge: tuple[Path, Path] | None,
    template: tuple[str, ...],
    strategy: str | None,
    option_pairs: tuple[str, ...],
    calibrate: bool,
    encoder: str | None,
    device: str,
) -> Classifier:
    """Fit a classifier from the shared options.

    Raises
    ------
    FewshotError
        for options that exclude each other, and whatever `Classifier.fit` refuses.
    """
    if classes is not None and classes_file is not None:
        raise InvalidOption("--classes and --classes-file exclude each other; give one of them")
    if template and classes is None and classes_file is None:
        raise InvalidOption("--template needs class names to put into it: pass --classes or --classes-file")
    if all(given is None for given in (classes, classes_file, support, attributes, source)):
        raise DataError("nothing to go by: pass --classes, --classes-file, --support, --attributes or --source")
    for path in unlabeled:
        if not path.exists():
            raise DataError(f"--unlabeled {path} is not there; give a picture, a folder of pictures or an index")
    if source is not None and not source.exists():
        raise DataError(f"--source {source} is not there; give a folder of class folders, a table or an index")
    from fewshot.classifier import Classifier
    from fewshot.options import split_pairs

    options = split_pairs(option_pairs)
    how: dict[str, Any] = {"options": options, "calibrate": calibrate, "device": device}
    classifier = Classifier(strategy, encoder or "lite", progress=True, **how)
    far: dict[str, Any] = {"source": source}
    if bridge:
        far = dict(zip(("source", "source_labels"), carried(source, bridge, classifier.encoder), strict=True))
    return classifier.fit(
        support,
        classes=classes_file or classes,
        templates=template,
        attributes=attributes,
        unlabeled=list(unlabeled) or None,
        **far,
    )


def carried(source: Path | None, bridge: tuple[Path, Path], encoder: Encoder) -> tuple[Tensor, list[str]]:
    """The labelled items of an index of another encoder, in the space of this one.  -> [N, D], N

    Raises
    ------
    InvalidOption
        without an index to carry over.
    """
    from fewshot.database import is_store
    from fewshot.transfer.sides import moved, read_index_side

    if source is None or not is_store(source):
        raise InvalidOption("--map carries an index over; give one as --source, or leave it out")
    return moved(read_index_side(source), crossing(bridge), encoder.name, encoder.fingerprint).labelled()


def crossing(bridge: tuple[Path, Path]) -> tuple[CrossMap, str, str]:
    """Learn the map between two indexes and say how good it is."""
    from fewshot.transfer.crossmap import map_between

    found = map_between(*bridge)
    share = f"{100 * found[0].fit:.0f} %" if found[0].fit > 0 else "nothing"
    click.echo(
        f"map: {found[0].kind} on {found[0].items} shared pictures, explains {share} of those left out", err=True
    )
    return found
