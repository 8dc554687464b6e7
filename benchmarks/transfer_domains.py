"""Real domains for the transfer benchmarks: sets of pictures, kinds of review, and pairs of them in one space."""

from __future__ import annotations

import hashlib
import html
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fewshot.arrays import unit
from fewshot.datasets import Items, Text
from fewshot.datasets.digits import NAMES
from fewshot.embed_items import embed_items
from fewshot.encoders import Encoder, load_encoder
from fewshot.encoders.lite_text import model_folder
from fewshot.features import Features
from fewshot.registry import registry
from fewshot.transfer.trial import Pair

EACH, TEXTS_EACH = 40, 500  # most pictures and most texts of a class
WEAKEST = 1.0  # least size of a review's mean rating, in -4..4, that counts as good or bad
BLOCKS = {"lite, visual block": slice(0, 1280), "lite, text block": slice(1280, None)}
PLACES = {"st:all-MiniLM-L6-v2": lambda: f"st:{model_folder()}"}  # the package that `lite` has its texts' model from
FIGURES = dict(zip("0123456789", NAMES, strict=True))  # one name for a digit in all sets


@dataclass(frozen=True)
class Domain:
    """A set of pictures, one split of it, at most so many of its classes (every so-manieth), and one part of each."""

    dataset: str
    path: str = ""
    split: str = ""
    classes: int = 0
    first: int = 0  # the first class that is taken
    named: tuple[str, ...] = ()  # the only classes to take
    part: tuple[int, int] = (0, 1)  # (k, n): every n-th item of a class, from the k-th on
    each: int = EACH


# classes of one name in CIFAR-FS and Caltech-101, the three animals of attributes/awa2_class_map.csv among them
BOTH = (
    "beaver", "butterfly", "chair", "crab", "crocodile", "cup", "dolphin", "elephant", "kangaroo", "lamp", "leopard",
    "lobster", "sunflower",
)  # fmt: skip
CLOTHES = ("longsleeve", "outwear", "shirt", "shorts", "skirt")
FRUITS = (
    "Golden-Delicious", "Granny-Smith", "Lemon", "Lime", "Nectarine", "Orange", "Peach", "Pink-Lady", "Red-Delicious",
    "Red-Grapefruit", "Royal-Gala", "Satsumas",
)  # fmt: skip
DOMAINS = {
    "grocery studio": Domain("grocery_fruit", "grocery_fruit", "iconic"),
    "grocery": Domain("grocery_fruit", "grocery_fruit", "train|test"),
    "grocery shelf": Domain("grocery_fruit", "grocery_fruit", "train"),
    "grocery shelf, test": Domain("grocery_fruit", "grocery_fruit", "test"),
    "digits": Domain("digits"),
    "digits, one half": Domain("digits", part=(0, 2), each=80),
    "digits, other half": Domain("digits", part=(1, 2), each=80),
    "signs": Domain("table", "sign_digits/index.csv"),
    "signs, one half": Domain("table", "sign_digits/index.csv", part=(0, 2)),
    "signs, other half": Domain("table", "sign_digits/index.csv", part=(1, 2)),
    "caltech": Domain("caltech101", "caltech101", classes=40),
    "caltech train, 20 classes": Domain("caltech101", "caltech101", "train16_seed1", classes=20),
    "caltech test, 20 classes": Domain("caltech101", "caltech101", "test", classes=20),
    "caltech, 13 things": Domain("caltech101", "caltech101", named=BOTH),
    "clothing": Domain("table", "clothing_small/index.csv", "train"),
    "clothing, test": Domain("table", "clothing_small/index.csv", "test"),
    "cifar": Domain("cifar_fs", "cifar_fs", classes=40),
    "cifar, 13 things": Domain("cifar_fs", "cifar_fs", named=BOTH),
    "omniglot": Domain("omniglot_background", "omniglot", classes=40),
    "caltech train, 20 others": Domain("caltech101", "caltech101", "train16_seed1", classes=20, first=2),
    "caltech test, 20 others": Domain("caltech101", "caltech101", "test", classes=20, first=2),
    "caltech train, 12 others": Domain("caltech101", "caltech101", "train16_seed1", classes=20, first=42),
    "cifar, 20 others, one half": Domain("cifar_fs", "cifar_fs", classes=20, first=2, part=(0, 2)),
    "cifar, 20 others, other half": Domain("cifar_fs", "cifar_fs", classes=20, first=2, part=(1, 2)),
    "cifar, 10 others, one half": Domain("cifar_fs", "cifar_fs", classes=20, first=52, part=(0, 2)),
    "clothing, test, half of the classes": Domain(
        "table", "clothing_small/index.csv", "test", named=("dress", "hat", "pants", "shoes", "t-shirt")
    ),
    "caltech train, 20 fresh": Domain("caltech101", "caltech101", "train16_seed1", classes=20, first=3),
    "caltech test, 20 fresh": Domain("caltech101", "caltech101", "test", classes=20, first=3),
    "cifar, 20 fresh, one half": Domain("cifar_fs", "cifar_fs", classes=20, first=4, part=(0, 2)),
    "cifar, 20 fresh, other half": Domain("cifar_fs", "cifar_fs", classes=20, first=4, part=(1, 2)),
    "letters, one half": Domain("omniglot_background", "omniglot", classes=25, first=7, part=(0, 2)),
    "letters, other half": Domain("omniglot_background", "omniglot", classes=25, first=7, part=(1, 2)),
    "digits, first third": Domain("digits", part=(0, 3), each=150),
    "digits, second third": Domain("digits", part=(1, 3), each=150),
    "caltech train, 20 unseen": Domain("caltech101", "caltech101", "train16_seed1", classes=20, first=4),
    "caltech test, 20 unseen": Domain("caltech101", "caltech101", "test", classes=20, first=4),
    "cifar, 20 unseen, one half": Domain("cifar_fs", "cifar_fs", classes=20, first=3, part=(0, 2)),
    "cifar, 20 unseen, other half": Domain("cifar_fs", "cifar_fs", classes=20, first=3, part=(1, 2)),
    "unseen letters, one half": Domain("omniglot_background", "omniglot", classes=25, first=20, part=(0, 2)),
    "unseen letters, other half": Domain("omniglot_background", "omniglot", classes=25, first=20, part=(1, 2)),
    "digits, last third": Domain("digits", part=(2, 3), each=150),
    "caltech train, 10 blind": Domain("caltech101", "caltech101", "train16_seed1", classes=10, first=1),
    "caltech test, 10 blind": Domain("caltech101", "caltech101", "test", classes=10, first=1),
    "cifar, 10 blind, one half": Domain("cifar_fs", "cifar_fs", classes=10, first=1, part=(0, 2)),
    "cifar, 10 blind, other half": Domain("cifar_fs", "cifar_fs", classes=10, first=1, part=(1, 2)),
    "blind letters, one half": Domain("omniglot_background", "omniglot", classes=15, first=31, part=(0, 2)),
    "blind letters, other half": Domain("omniglot_background", "omniglot", classes=15, first=31, part=(1, 2)),
    "five digits": Domain("digits", named=("one", "three", "four", "seven", "nine")),
    "five signs": Domain("table", "sign_digits/index.csv", named=("1", "3", "4", "7", "9")),
    "signs, one third": Domain("table", "sign_digits/index.csv", part=(0, 3)),
    "signs, other third": Domain("table", "sign_digits/index.csv", part=(1, 3)),
    "five clothes": Domain("table", "clothing_small/index.csv", "train", named=CLOTHES),
    "five clothes, test": Domain("table", "clothing_small/index.csv", "test", named=CLOTHES),
    "twelve fruits, studio": Domain("grocery_fruit", "grocery_fruit", "iconic", named=FRUITS),
    "twelve fruits, shelf": Domain("grocery_fruit", "grocery_fruit", "train", named=FRUITS),
    "twelve fruits, shelf, test": Domain("grocery_fruit", "grocery_fruit", "test", named=FRUITS),
    "caltech, 20 classes": Domain("caltech101", "caltech101", classes=20),
    "cifar, 20 classes": Domain("cifar_fs", "cifar_fs", classes=20),
}
KINDS = {
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
    "tweets": "tweets",
}


@dataclass(frozen=True)
class Sentences:
    """Of one kind, rated from so strong on to less than so strong, a range of each class in a random order."""

    kind: str
    weakest: float = WEAKEST
    below: float = 9.0  # ratings end at 4
    start: int = 0
    stop: int = TEXTS_EACH


REVIEWS = {kind: Sentences(kind) for kind in KINDS} | {
    "films, second part": Sentences("films", start=500, stop=1000),
    "products, second part": Sentences("products", start=500, stop=720),
    "tweets, second part": Sentences("tweets", start=500, stop=670),
    "editorials, weak": Sentences("editorials", 0.4, 1.0, stop=300),
    "tweets, weak": Sentences("tweets", 0.4, 1.0, stop=140),
    "films, third part": Sentences("films", start=1000, stop=1500),
    "products, third part": Sentences("products", start=720, stop=939),
    "tweets, third part": Sentences("tweets", start=670, stop=837),
    "films, weak": Sentences("films", 0.4, 1.0, stop=400),
    "products, weak": Sentences("products", 0.4, 1.0, stop=280),
    "editorials, weak, second part": Sentences("editorials", 0.4, 1.0, start=300, stop=600),
    "films, fourth part": Sentences("films", start=1500, stop=2000),
    "films, fifth part": Sentences("films", start=2000, stop=2500),
    "editorials, weak, third part": Sentences("editorials", 0.4, 1.0, start=600, stop=781),
    "tweets, weak, second part": Sentences("tweets", 0.4, 1.0, start=140, stop=294),
    "films, sixth part": Sentences("films", start=2500, stop=3000),
    "films, seventh part": Sentences("films", start=3000, stop=3500),
    "films, eighth part": Sentences("films", start=3500, stop=4000),
    "films, ninth part": Sentences("films", start=4000, stop=4200),
}
MIXED = {"kinds, one half": 0, "kinds, other half": 1}  # every other sentence of four sets, to tell these apart
MIXED_SETS = ("films, ninth part", "products, third part", "editorials, weak, third part", "tweets, third part")


def load(name: str, data: Path) -> Items:
    """At most so many items a class of one split."""
    domain = DOMAINS[name]
    items = registry().dataset(domain.dataset)().load(data / domain.path if domain.path else None)
    names = domain.named or items.classes
    if domain.classes:
        names = names[domain.first :: max(1, len(names) // domain.classes)][: domain.classes]
    rng, kept = np.random.default_rng(0), []
    splits = items.splits or ("",) * len(items.labels)
    start, step = domain.part
    for label in names:
        here = [
            i
            for i, own in enumerate(items.labels)
            if own == label and (not domain.split or splits[i] in domain.split.split("|"))
        ]
        kept += rng.permutation(here)[: domain.each][start::step].tolist()
    return replace(
        items,
        sources=tuple(items.sources[i] for i in kept),
        labels=tuple(FIGURES.get(items.labels[i], items.labels[i].lower()) for i in kept),
        splits=(),
        phrases={},
        fixed=(),
    )


def review_file(kind: str, folder: Path) -> Path:
    return folder / f"{KINDS[kind]}_GroundTruth.txt"


def load_reviews(name: str, folder: Path) -> Items:
    """Sentences of one kind, each once, good or bad by the sign of people's mean rating; weak ones are left out."""
    rng, found, wanted = np.random.default_rng(0), {}, REVIEWS[name]
    for line in review_file(wanted.kind, folder).read_text(encoding="utf-8-sig").splitlines():
        _, rating, text = line.split("\t")
        if wanted.weakest <= abs(float(rating)) < wanted.below:
            found.setdefault(html.unescape(text).strip(), "good" if float(rating) > 0 else "bad")
    texts, kept = list(found), []
    for label in ("bad", "good"):
        here = [text for text in texts if found[text] == label]
        kept += [(here[i], label) for i in rng.permutation(len(here))[wanted.start : wanted.stop]]
    return Items(tuple(Text(text) for text, _ in kept), tuple(label for _, label in kept))


def load_kinds(name: str, folder: Path) -> Items:
    """Sentences of four kinds, good and bad, labelled by their kind."""
    found = [(item, kind) for kind in MIXED_SETS for item in load_reviews(kind, folder).sources[MIXED[name] :: 2]]
    return Items(tuple(item for item, _ in found), tuple(REVIEWS[kind].kind for _, kind in found))


def review_digests(folder: Path) -> dict[str, str]:
    return {kind: hashlib.sha256(review_file(kind, folder).read_bytes()).hexdigest() for kind in KINDS}


class Embeddings:
    """Features of each domain by each encoder, embedded once."""

    def __init__(self, data: Path, cache: Path, reviews: Path | None = None) -> None:
        self.data, self.cache, self.reviews = data, cache, reviews
        self.encoders: dict[str, Encoder] = {}

    def get(self, name: str, encoder: str) -> Features:
        if encoder in BLOCKS:
            whole = self.get(name, "lite")
            return replace(whole, x=unit(whole.x[:, BLOCKS[encoder]]))
        if encoder not in self.encoders:
            self.encoders[encoder] = load_encoder(PLACES.get(encoder, lambda: encoder)(), "cpu")
        sentences = load_kinds if name in MIXED else load_reviews
        texts = self.reviews if name in REVIEWS or name in MIXED else None
        items = sentences(name, texts) if texts else load(name, self.data)
        return embed_items(name, items, self.encoders[encoder], cache=self.cache)[0]


def make_pair(source: Features, target: Features, change: str) -> Pair:
    """Number the source's classes as the target's where they have one name, and change labels where that is asked."""
    own = [c for c in source.classes if c not in target.classes]
    number = {name: i for i, name in enumerate([*target.classes, *own])}
    labels = torch.tensor([number[source.classes[c]] for c in source.labels])  # [N]
    place, count = torch.arange(len(labels)), len(target.classes)
    if change == "labels shifted by one":
        labels = (labels + 1) % count
    elif change == "half of the labels shifted":
        labels = torch.where(place % 2 == 0, (labels + 1) % count, labels)
    elif change == "a third of the labels random":
        drawn = torch.randint(count, (len(labels),), generator=torch.Generator().manual_seed(0))
        labels = torch.where(place % 3 == 0, drawn, labels)
    elif change == "half of the classes exchanged":  # 0 with 1, 2 with 3 ...; the other half of the classes is right
        labels = torch.where(labels < 2 * (count // 4), labels ^ 1, labels)
    elif change == "two classes exchanged":
        labels = torch.where(labels < 2, labels ^ 1, labels)
    elif change == "labels reversed":
        labels = torch.where(labels < count, count - 1 - labels, labels)
    elif change == "two fifths of the labels shifted":
        labels = torch.where(place % 5 < 2, (labels + 1) % count, labels)
    elif change == "half of the labels random":
        drawn = torch.randint(count, (len(labels),), generator=torch.Generator().manual_seed(0))
        labels = torch.where(place % 2 == 0, drawn, labels)
    elif change:
        raise ValueError(f"no such change of labels: {change!r}")
    return Pair(source.x, labels, target.x, torch.from_numpy(target.labels), target.classes)
