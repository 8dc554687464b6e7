"""What the demo does, step by step, each answer printed beside the truth."""

from __future__ import annotations

from pathlib import Path

import click

from fewshot.build import build_index
from fewshot.classifier import Classifier
from fewshot.encoders import Encoder, load_encoder
from fewshot.search import query
from fewshot.sheet import Section, write_sheet
from fewshot_plugins.demo.digits import SHOTS, UNSEEN, Score, embed_digits, from_attributes, from_examples
from fewshot_plugins.demo.material import QUERIES, write_photographs


def run(out: Path, encoder_name: str, device: str) -> None:
    """Run every step and write the index, the photographs and the contact sheet into `out`."""
    truth = write_photographs(out / "photos")
    heading(f"1. Index {len(truth)} photographs from scikit-image and scikit-learn with encoder {encoder_name}")
    index = out / "photos.index"
    counts = build_index([str(out / "photos")], str(index), encoder=encoder_name, device=device, progress=True)
    click.echo(f"   {counts}")
    encoder = load_encoder(encoder_name, device)
    heading("2. Search them by text")
    search(index, encoder, out / "found.html")
    heading("3. Classify them by name alone (zero-shot: no example of any class)")
    click.echo(f"   zero_shot: {zero_shot(index, encoder, truth)}; guessing: {1 / len(set(truth.values())):.1%}")
    heading(f"4. Classify handwritten digits from {SHOTS} examples of each (few-shot)")
    digits = embed_digits(encoder)
    name, score = from_examples(encoder, digits)
    click.echo(f"   {name}: {score}; guessing: 10.0%")
    heading(f"5. Tell {', '.join(UNSEEN)} apart without one picture of them, from attributes (loops, strokes ...)")
    for name, score in from_attributes(encoder, digits).items():
        click.echo(f"   {name}: {score}; guessing: {1 / len(UNSEEN):.1%}")
    click.echo(f"\nThe pictures found in step 2: {out / 'found.html'}")
    click.echo(f'Your own words: fewshot query {index} "something furry"')


def heading(text: str) -> None:
    """Print the title of a step."""
    click.echo(f"\n{text}")


def search(index: Path, encoder: Encoder, sheet: Path) -> None:
    """Answer the text queries and write the contact sheet."""
    answers = query(index, list(QUERIES), top=3, encoder=encoder)
    for text, hits in zip(QUERIES, answers, strict=True):
        found = ", ".join(f"{Path(hit.path).name} {hit.score:.3f}" for hit in hits)
        click.echo(f"   {text!r}: {found}")
    sections = [
        Section(text, [(hit.path, f"{hit.score:.3f}") for hit in hits])
        for text, hits in zip(QUERIES, answers, strict=True)
    ]
    write_sheet(sheet, "fewshot demo", sections)


def zero_shot(index: Path, encoder: Encoder, truth: dict[Path, str]) -> Score:
    """Classify the index by the names of what the photographs show, and print each answer."""
    classifier = Classifier(encoder=encoder).fit(classes=sorted(set(truth.values())))
    shown = {path.name: label for path, label in truth.items()}
    right = 0
    for found in classifier.predict(index):
        name = Path(found.path).name
        right += found.label == shown[name]
        mark = "" if found.label == shown[name] else f", in truth {shown[name]}"
        click.echo(f"   {name}: {found.label} ({found.probability:.2f}){mark}")
    return Score(right, len(truth))
