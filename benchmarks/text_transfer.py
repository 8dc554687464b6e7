"""A classifier of opinions carried from one kind of review to another: what the source is worth, by examples at hand.

    python benchmarks/text_transfer.py --pair films.csv products.csv --out OUT
    python benchmarks/text_transfer.py --reviews hutto_ICWSM_2014 --out benchmarks/results/text_transfer

A table has the columns `text` and `label`, the same labels in both. With --reviews, tables are made from the rated
sentences of Hutto, Gilbert 2014 (see `transfer_held_out.py` for how to get them) and films, products and tweets are
paired. For every number of labelled target texts a class, 20 draws: accuracy of the target alone, and with the source;
and without any target text: the source's classifier as it is, and the class names (`zero_shot`). Test texts, 200 a
class, are held by no draw. Defaults throughout: nothing is tuned on any of it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import torch
from torch import Tensor
from transfer_domains import PLACES, load_reviews, make_pair
from transfer_pairs import accuracies, draw, percent

from fewshot.datasets.table import read_table
from fewshot.embed_items import embed_items
from fewshot.encoders import Encoder, load_encoder
from fewshot.features import Features
from fewshot.metrics.interval import Estimate, mean_interval
from fewshot.provenance import versions
from fewshot.registry import registry
from fewshot.strategy import Head, fit
from fewshot.task import make_task
from fewshot.transfer.trial import ALONE, Pair, thinned

SHOTS, DRAWS, TESTS, FEWEST_TESTS = (1, 2, 5, 10, 20, 50), 20, 200, 10
NAMES = ("pooled", "biased_ridge", "coral")
ENCODERS = ("lite", "st:all-MiniLM-L6-v2")
REVIEWS = (("films", "products"), ("products", "films"), ("products", "tweets"), ("tweets", "products"))


def table_of(kind: str, reviews: Path, folder: Path) -> Path:
    """Write one kind of sentence as a CSV with the columns text and label."""
    items, file = load_reviews(kind, reviews), folder / f"{kind}.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *zip(items.sources, items.labels, strict=True)])
    return file


def right(head: Head, pair: Pair, test: Tensor) -> Estimate:
    """Accuracy on test items with the 95 % half width over them."""
    hits = head.logits(pair.target[test]).argmax(-1) == pair.labels[test]
    return mean_interval(hits.double().numpy())


def measure(source: Features, target: Features) -> dict[str, object]:
    """Accuracies and gains at every number of labelled target texts, and without any."""
    pair = thinned(make_pair(source, target, ""), 0)
    shown: dict[str, object] = {}
    least = int(np.bincount(target.labels).min())
    for shots in (n for n in SHOTS if n + FEWEST_TESTS < least):
        parts = draw(target.labels, shots, TESTS, DRAWS)
        accuracy = accuracies(pair, NAMES, parts)
        shown[str(shots)] = {
            name: {
                "accuracy": asdict(mean_interval(values)),
                "gain": asdict(mean_interval(values - accuracy[ALONE])),
            }
            for name, values in accuracy.items()
        }
    if not shown:
        raise SystemExit(f"the target has a class of {least} texts; give at least {FEWEST_TESTS + 2} of each")
    test = torch.from_numpy(parts[0][1])
    theirs = fit(registry().strategy(ALONE)(), make_task(pair.source, pair.source_labels, classes=len(pair.classes)))
    names = fit(registry().strategy("zero_shot")(), make_task(text=target.text, text_weight=target.text_weight))
    return {
        "source texts": len(pair.source),
        "test texts": len(test),
        "without target texts": {n: asdict(right(h, pair, test)) for n, h in (("source", theirs), ("names", names))},
        "labelled target texts a class": shown,
    }


def text(result: dict) -> str:
    """The result as Markdown."""
    lines = [
        "# Good or bad? A classifier carried from one kind of text to another",
        "",
        f"Accuracy in % on up to {TESTS} texts a class of the target by the number of labelled target texts a class, "
        "and the gain of learning with the source on the target alone (`ridge`), in points; 95 % half widths over "
        f"{DRAWS} draws of the labelled texts, which share the test texts. Sources of at most 600 texts. *Source* is "
        "the source's classifier as it is, *names* is `zero_shot` with the labels' names; their half widths are over "
        "the test texts. Sentences and ratings: Hutto, Gilbert 2014. Made by `" + result["command"] + "`.",
    ]
    for name, encoders in result["pairs"].items():
        for encoder, found in encoders.items():
            free = found["without target texts"]
            lines += ["", f"## {name} by `{encoder}`", ""]
            lines += ["Without a target text: " + ", ".join(f"{n} {percent(e)}" for n, e in free.items()) + ".", ""]
            lines += ["| texts a class | target alone | " + " | ".join(NAMES) + " |", "|---" * (len(NAMES) + 2) + "|"]
            for shots, rows in found["labelled target texts a class"].items():
                gains = " | ".join(percent(rows[n]["gain"], True) for n in NAMES)
                lines.append(f"| {shots} | {percent(rows[ALONE]['accuracy'])} | {gains} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", nargs=2, type=Path, action="append", default=[], metavar=("SOURCE", "TARGET"))
    parser.add_argument("--reviews", type=Path, help="folder hutto_ICWSM_2014")
    parser.add_argument("--out", type=Path, required=True, help="path without ending; writes .json and .md")
    usual = Path(gettempdir()) / "fewshot-text-transfer"
    parser.add_argument("--work", type=Path, default=usual, help="where the tables of --reviews and embeddings go")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    pairs = [tuple(pair) for pair in given.pair]
    if given.reviews:
        tables = {kind: table_of(kind, given.reviews, given.work) for kind in dict.fromkeys(sum(REVIEWS, ()))}
        pairs += [(tables[source], tables[target]) for source, target in REVIEWS]
    result = {
        "command": "python benchmarks/text_transfer.py --reviews hutto_ICWSM_2014 --out OUT",
        "versions": versions(),
        "spec": {"draws": DRAWS, "tests": TESTS},
        "pairs": {},
    }
    for name in ENCODERS:
        encoder: Encoder = load_encoder(PLACES.get(name, lambda name=name: name)(), "cpu")
        for source, target in pairs:
            sides = [embed_items(f.stem, read_table(f), encoder, cache=given.work)[0] for f in (source, target)]
            digests = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (source, target)}
            found = {"fingerprint": encoder.fingerprint, "sha256": digests, **measure(*sides)}
            result["pairs"].setdefault(f"{source.stem} -> {target.stem}", {})[name] = found
            print(source.stem, target.stem, name, flush=True)
    given.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    given.out.with_suffix(".md").write_text(text(result))


if __name__ == "__main__":
    main()
