"""What the demo does, step by step, each answer printed beside the truth."""

from __future__ import annotations

from pathlib import Path

import click

from fewshot.classifier import Classifier
from fewshot.classes import ClassList
from fewshot.encoders import Encoder, load_encoder
from fewshot_plugins.demo.digits import SHOTS, UNSEEN, Score, embed_digits, from_attributes, from_examples
from fewshot_plugins.demo.material import QUERIES, write_photographs


def run(out: Path, encoder_name: str, device: str) -> None:
    """Run every step and write the index, the photographs and the contact sheet into `out`."""
    encoder = load_encoder(encoder_name, device)
    truth = write_photographs(out / "photos")
    heading(f"1. Index {len(truth)} photographs from scikit-image and scikit-learn with encoder {encoder.name}")
    index = out / "photos.index"
    build(index, [out / "photos"], encoder)
    heading("2. Search them by text")
    search(index, encoder, out / "found.html")
    heading("3. Classify them by name alone (zero-shot: no example of any class)")
    click.echo(f"   {zero_shot(index, encoder, truth)}; guessing: {1 / len(set(truth.values())):.1%}")
    heading(f"4. Classify handwritten digits from {SHOTS} examples of each (few-shot)")
    digits = embed_digits(encoder)
    name, score = from_examples(encoder, digits)
    click.echo(f"   {name}: {score}; guessing: 10.0%")
    heading(f"5. Recognise {', '.join(UNSEEN)} without one picture of them, from attributes (loops, strokes ...)")
    for name, score in from_attributes(encoder, digits).items():
        click.echo(f"   {name}: {score}; guessing: {1 / len(UNSEEN):.1%}")
    click.echo(f"\nLook at the answers of step 2 with their pictures: {out / 'found.html'}")
    click.echo(f'Go on with your own words: fewshot query {index} "something furry"')


def heading(text: str) -> None:
    """Print the title of a step."""
    click.echo(f"\n{text}")
