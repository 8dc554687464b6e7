"""fewshot classify: sort pictures, folders or an index into classes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fewshot.cli.task_options import given_path, learn, task_options
from fewshot.errors import DataError, InvalidOption

if TYPE_CHECKING:
    from fewshot.classifier import Prediction
    from fewshot.embedding import Skipped


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@task_options
@click.option(
    "--model", type=given_path, metavar="FILE", help="A classifier saved by `fewshot fit`, instead of the above."
)
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="How many labels to show a picture.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def classify(paths: tuple[str, ...], model: Path | None, top: int, as_json: bool, **task: Any) -> None:
    """Classify pictures, folders or an index.

    Learn from class names (--classes), examples (--support), both, or --attributes; or use a saved --model.
    """
    for path in paths:
        if not path or not Path(path).exists():
            raise DataError(f"{path or repr(path)} is not there; give pictures, folders, or an index")
    task["encoder"] = task["encoder"] or _encoder_of_index(paths)
    classifier = _load(model, task) if model else learn(**task)
    from fewshot.inputs import embed_inputs

    queries = embed_inputs(classifier.encoder, list(paths), progress=True)
    show(classifier.predict_embedded(queries, top), as_json)
    report_skipped([*classifier.skipped, *queries.skipped])
    if not queries.names:
        raise DataError("none of the pictures could be read, so there is nothing to classify")


def _load(model: Path, task: dict[str, Any]) -> Any:
    given = [name for name, value in task.items() if value and name not in ("device", "encoder")]
    if given:
        typed = sorted("--" + {"bridge": "map", "option_pairs": "option"}.get(n, n.replace("_", "-")) for n in given)
        raise InvalidOption(f"--model brings its own classes and strategy; leave out {', '.join(typed)}")
    from fewshot.classifier import Classifier

    return Classifier.load(model, device=task["device"], progress=True)


def _encoder_of_index(paths: Iterable[str]) -> str | None:
    """Name the encoder of the first index among the paths, so that nobody has to repeat it."""
    folders = [Path(path) for path in paths if Path(path).is_dir()]
    if not folders:
        return None
    from fewshot.database import is_store
    from fewshot.store import Store

    for folder in folders:
        if is_store(folder):
            with Store.open(folder) as store:
                return store.encoder
    return None


def show(predictions: Iterable[Prediction], as_json: bool) -> None:
    """Print predictions as JSON lines, or a line each: path, label and probability of the best ones."""
    for found in predictions:
        if as_json:
            click.echo(json.dumps(found.to_json(), ensure_ascii=False))
        else:
            ranked = "  ".join(f"{label} {probability:.2f}" for label, probability in found.top)
            click.echo(f"{found.path}: {ranked}")


def report_skipped(skipped: Iterable[Skipped]) -> None:
    """Name on stderr each picture that could not be read, and count them."""
    listed = list(skipped)
    for skip in listed:
        click.echo(f"skipped {skip.source!s}: {skip.reason}", err=True)
    if listed:
        click.echo(f"pictures skipped: {len(listed)}", err=True)
