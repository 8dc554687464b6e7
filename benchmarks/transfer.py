"""Transfer between real sets of pictures: what each strategy gains or costs, what was advised, and what was best.

    python benchmarks/transfer.py --data DATA --cache CACHE --out benchmarks/results/transfer

Ten source/target pairs: for each, 5 labelled target items a class, drawn 8 times; accuracy on target items that no draw
holds, without the source and with it by every strategy; and the advice, given from the first draw alone. Then the
ranking of seven encoders and feature depths by scores that train nothing, against their accuracy at 16 shots.
Interrupted, it goes on where it stopped. Embeddings are kept in CACHE.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewshot.arrays import unit
from fewshot.datasets import Items
from fewshot.datasets.digits import NAMES
from fewshot.embed_items import embed_items
from fewshot.encoders import Encoder, load_encoder
from fewshot.features import Features
from fewshot.metrics.interval import mean_interval
from fewshot.provenance import versions
from fewshot.registry import registry
from fewshot.strategy import fit
from fewshot.task import make_task
from fewshot.transfer.advice import choose
from fewshot.transfer.gap import coral_distance, mmd, proxy_a_distance
from fewshot.transfer.scores import h_score, logme, loo_ridge
from fewshot.transfer.trial import ALONE, OTHER, SAME, Pair, Trial, corrected, run_parts, spanned, thinned, try_out

SHOTS, DRAWS, SLOW_DRAWS, TESTS, EACH = (
    5,
    8,
    3,
    20,
    40,
)  # TESTS: most test items a class; EACH: most items a class of a set
DEPTHS = ("lite", "lite:stage5", "lite:stage6", "lite:stage7", "toy")
BLOCKS = {"lite, visual block": slice(0, 1280), "lite, text block": slice(1280, None)}
RANK_SHOTS, RANK_DRAWS = 16, 5


@dataclass(frozen=True)
class Domain:
    """A set of pictures, one split of it, and at most so many of its classes (every so-manieth)."""

    dataset: str
    path: str = ""
    split: str = ""
    classes: int = 0


DOMAINS = {
    "grocery studio": Domain("grocery_fruit", "grocery_fruit", "iconic"),
    "grocery": Domain("grocery_fruit", "grocery_fruit", "train|test"),
    "grocery shelf": Domain("grocery_fruit", "grocery_fruit", "train"),
    "grocery shelf, test": Domain("grocery_fruit", "grocery_fruit", "test"),
    "digits": Domain("digits"),
    "signs": Domain("table", "sign_digits/index.csv"),
    "caltech": Domain("caltech101", "caltech101", classes=40),
    "clothing": Domain("table", "clothing_small/index.csv", "train"),
    "clothing, test": Domain("table", "clothing_small/index.csv", "test"),
    "cifar": Domain("cifar_fs", "cifar_fs", classes=40),
    "caltech, 20 classes": Domain("caltech101", "caltech101", classes=20),
    "cifar, 20 classes": Domain("cifar_fs", "cifar_fs", classes=20),
}
# (source, target, change of the source)
PAIRS = (
    ("grocery studio", "grocery", ""),
    ("grocery shelf, test", "grocery shelf", ""),
    ("digits", "signs", ""),
    ("signs", "digits", ""),
    ("caltech", "clothing", ""),
    ("caltech", "grocery", ""),
    ("clothing, test", "clothing", ""),
    ("clothing, test", "clothing", "labels shifted by one"),
    ("clothing, test", "clothing", "half of the labels shifted"),
    ("cifar", "signs", ""),
)
FIGURES = dict(zip("0123456789", NAMES, strict=True))  # one name for a digit in all sets
RANKED = ("clothing", "grocery", "signs", "digits", "caltech, 20 classes", "cifar, 20 classes")


def load(name: str, data: Path) -> Items:
    """At most EACH items a class of one split."""
    domain = DOMAINS[name]
    items = registry().dataset(domain.dataset)().load(data / domain.path if domain.path else None)
    names = items.classes
    if domain.classes:
        names = names[:: max(1, len(names) // domain.classes)][: domain.classes]
    rng, kept = np.random.default_rng(0), []
    splits = items.splits or ("",) * len(items.labels)
    for label in names:
        here = [
            i
            for i, own in enumerate(items.labels)
            if own == label and (not domain.split or splits[i] in domain.split.split("|"))
        ]
        kept += rng.permutation(here)[:EACH].tolist()
    return replace(
        items,
        sources=tuple(items.sources[i] for i in kept),
        labels=tuple(FIGURES.get(items.labels[i], items.labels[i].lower()) for i in kept),
        splits=(),
        phrases={},
        fixed=(),
    )


class Embeddings:
    """Features of each domain by each encoder, embedded once."""

    def __init__(self, data: Path, cache: Path) -> None:
        self.data, self.cache = data, cache
        self.encoders: dict[str, Encoder] = {}

    def get(self, name: str, encoder: str) -> Features:
        if encoder in BLOCKS:
            whole = self.get(name, "lite")
            return replace(whole, x=unit(whole.x[:, BLOCKS[encoder]]))
        if encoder not in self.encoders:
            self.encoders[encoder] = load_encoder(encoder, "cpu")
        return embed_items(name, load(name, self.data), self.encoders[encoder], cache=self.cache)[0]


def make_pair(source: Features, target: Features, change: str) -> Pair:
    """Number the source's classes as the target's where they have one name, and change labels where that is asked."""
    own = [c for c in source.classes if c not in target.classes]
    number = {name: i for i, name in enumerate([*target.classes, *own])}
    labels = torch.tensor([number[source.classes[c]] for c in source.labels])  # [N]
    moved = torch.arange(len(labels)) % 2 == 0 if change.startswith("half") else torch.ones(len(labels)).bool()
    if change:
        labels = torch.where(moved, (labels + 1) % len(target.classes), labels)
    return Pair(source.x, labels, target.x, torch.from_numpy(target.labels), target.classes)


def draw(labels: np.ndarray, shots: int, tests: int, draws: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same test items in each draw, and support drawn from the rest."""
    rng = np.random.default_rng(1)
    orders = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    test = np.concatenate([o[: min(tests, len(o) - shots - 1)] for o in orders])
    pools = [o[min(tests, len(o) - shots - 1) :] for o in orders]
    return [(np.concatenate([rng.permutation(p)[:shots] for p in pools]), test) for _ in range(draws)]


def of_rows(pair: Pair, rows: np.ndarray) -> Pair:
    chosen = torch.from_numpy(rows)
    return replace(pair, target=pair.target[chosen], labels=pair.labels[chosen])


def truth(trial: Trial) -> dict[str, dict[str, object]]:
    """Accuracy of each strategy over the draws, and its gain on no transfer, paired; test items are the same ones."""
    gain = {name: corrected(values - trial.accuracy[ALONE], 0.0) for name, values in trial.accuracy.items()}
    return {n: {"accuracy": asdict(mean_interval(v)), "gain": asdict(gain[n])} for n, v in trial.accuracy.items()}


def run_pair(source: Features, target: Features, change: str) -> dict[str, object]:
    pair = thinned(make_pair(source, target, change), 0)
    names, parts = SAME if pair.shared > 1 else OTHER, draw(pair.labels.numpy(), SHOTS, TESTS, DRAWS)
    full = run_parts(spanned(pair), names, parts)
    slow = run_parts(spanned(pair), ["dann"], parts[:SLOW_DRAWS])
    shown = of_rows(pair, parts[0][0])  # what a user has: the first draw's labelled items
    advised = try_out(shown, names, repeats=20)
    choice, best = choose(advised), full.best()
    top = mean_interval(full.accuracy[best])
    short = corrected(full.accuracy[best] - full.accuracy[choice], 0.0)
    plain = "pooled" if "pooled" in full.accuracy else "multi_task"
    said, real = advised.gain(plain), corrected(full.accuracy[plain] - full.accuracy[ALONE], 0.0)
    return {
        "shared classes": pair.shared,
        "classes": len(pair.classes),
        "source items": len(pair.source),
        "gap": gaps(pair.source, shown.target),
        "strategies": truth(full) | {"dann": truth(slow)["dann"]},
        "advised": choice,
        "advised gain": asdict(advised.gain(choice)),
        "best": best,
        "short of the best": asdict(short),
        "right": bool(full.accuracy[choice].mean() >= top.mean - top.half_width),
        "source + target": {"strategy": plain, "said": asdict(said), "real": asdict(real)},
        "left out": full.left_out,
    }


def gaps(source: Tensor, target: Tensor) -> dict[str, float]:
    found = mmd(source, target)
    return {
        "mmd2": found.mmd2,
        "p": found.p,
        "coral": coral_distance(source, target),
        "a_distance": proxy_a_distance(source, target),
    }


def accuracy_at(features: Features, part: tuple[np.ndarray, np.ndarray]) -> float:
    rows, test = (torch.from_numpy(r) for r in part)
    labels = torch.from_numpy(features.labels)
    head = fit(registry().strategy(ALONE)(), make_task(features.x[rows], labels[rows]))
    return float((head.logits(features.x[test]).argmax(-1) == labels[test]).double().mean())


def run_ranking(name: str, embeddings: Embeddings) -> dict[str, dict[str, float]]:
    """Scores on 16 labelled items a class and accuracy on the others, for every encoder: means over draws."""
    found = {}
    for encoder in (*DEPTHS, *BLOCKS):
        features = embeddings.get(name, encoder)
        parts = draw(features.labels, RANK_SHOTS, TESTS, RANK_DRAWS)
        rows = []
        for part in parts:
            x, labels = features.x[torch.from_numpy(part[0])], torch.from_numpy(features.labels[part[0]])
            rows.append((logme(x, labels), h_score(x, labels), loo_ridge(x, labels), accuracy_at(features, part)))
        found[encoder] = dict(zip(("logme", "h_score", "loo", "accuracy"), np.mean(rows, 0).tolist(), strict=True))
    return found


def kendall(a: list[float], b: list[float]) -> float:
    """Kendall's tau-a: pairs in the same order less pairs in the other, over all pairs."""
    signs = [np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i in range(len(a)) for j in range(i)]
    return float(np.mean(signs))


def mean_rank(table: dict[str, dict[str, float]]) -> list[float]:
    """Each encoder's mean rank by LogME, H-score and leave-one-out ridge, negated so that larger is better."""
    values = np.array([[row[s] for s in ("logme", "h_score", "loo")] for row in table.values()])  # [K, 3]
    return (-(values[None] > values[:, None]).sum(1).mean(-1)).tolist()


def taus(table: dict[str, dict[str, float]]) -> dict[str, float]:
    truth_ = [row["accuracy"] for row in table.values()]
    found = {s: kendall([row[s] for row in table.values()], truth_) for s in ("logme", "h_score", "loo")}
    return found | {"together": kendall(mean_rank(table), truth_)}


def percent(e: dict[str, float], sign: bool = False) -> str:
    return f"{100 * e['mean']:{'+' if sign else ''}.1f} ± {100 * e['half_width']:.1f}"


def text(result: dict) -> str:
    """The result as Markdown."""
    pairs, ranking = result["pairs"], result["ranking"]
    right = sum(p["right"] for p in pairs.values())
    lines = [
        "# Transfer between real sets of pictures",
        "",
        f"{SHOTS} labelled target items a class, {DRAWS} draws ({SLOW_DRAWS} for `dann`, "
        "which takes no part in the choice of the best), encoder `lite`, sources of "
        "at most 600 items; accuracy in % on up to 20 target items a class that no draw holds, gains on no transfer "
        "(`ridge` on the target alone) with their 95 % half widths over draws, which share their test items. The "
        "advice is what `fewshot advise` gives for the first draw's labelled items; it is right when the accuracy of "
        "what it advises lies within the interval of the best strategy's. Made by `" + result["command"] + "`.",
        "",
        f"Advice right in {right} of {len(pairs)} pairs.",
        "",
        "| source -> target | no transfer | best | advised | short of the best | right | source + target: said | is |",
        "|---" * 8 + "|",
    ]
    for name, p in pairs.items():
        told = p["source + target"]
        rows = p["strategies"]
        lines.append(
            f"| {name} | {percent(rows[ALONE]['accuracy'])} | {p['best']} {percent(rows[p['best']]['gain'], True)} | "
            f"{p['advised']} {percent(rows[p['advised']]['gain'], True)} | {percent(p['short of the best'])} | "
            f"{'yes' if p['right'] else 'no'} | {percent(told['said'], True)} | {percent(told['real'], True)} |"
        )
    lines += ["", "## Gain of every strategy", ""]
    names = list(dict.fromkeys(n for p in pairs.values() for n in p["strategies"] if n != ALONE))
    lines += ["| source -> target | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, p in pairs.items():
        cells = [percent(p["strategies"][n]["gain"], True) if n in p["strategies"] else "" for n in names]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "## The gap", "", "| source -> target | MMD^2 | p | CORAL | proxy A |", "|---" * 5 + "|"]
    for name, p in pairs.items():
        g = p["gap"]
        lines.append(f"| {name} | {g['mmd2']:.4f} | {g['p']:.3f} | {g['coral']:.2e} | {g['a_distance']:.2f} |")
    lines += ["", f"## Which encoder: scores on {RANK_SHOTS} labelled items a class against accuracy", ""]
    lines += ["| data | encoder | LogME | H-score | leave-one-out | accuracy |", "|---" * 6 + "|"]
    for name, table in ranking.items():
        for encoder, r in table.items():
            lines.append(
                f"| {name} | {encoder} | {r['logme']:.3f} | {r['h_score']:.2f} | {100 * r['loo']:.1f} | "
                f"{100 * r['accuracy']:.1f} |"
            )
    found = {name: taus(table) for name, table in ranking.items()}
    lines += ["", "Kendall's tau of each score with the accuracy; `together` ranks by the mean of the three ranks.", ""]
    lines += ["| data | LogME | H-score | leave-one-out | together |", "|---" * 5 + "|"]
    for name, t in found.items():
        lines.append(f"| {name} | " + " | ".join(f"{v:.2f}" for v in t.values()) + " |")
    if found:
        means = np.mean([list(t.values()) for t in found.values()], 0)
        lines.append("| mean | " + " | ".join(f"{v:.2f}" for v in means) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="path without ending; writes .json and .md")
    given = parser.parse_args()
    file, embeddings = given.out.with_suffix(".json"), Embeddings(given.data, given.cache)
    result = {
        "command": "python benchmarks/transfer.py --data DATA --cache CACHE --out OUT",
        "versions": versions(),
        "spec": {"shots": SHOTS, "draws": DRAWS, "tests": TESTS, "each": EACH, "rank_shots": RANK_SHOTS},
        "pairs": {},
        "ranking": {},
    }
    if file.exists():
        result = json.loads(file.read_text())
    for source, target, change in PAIRS:
        name = f"{source} -> {target}" + f" ({change})" * bool(change)
        if name not in result["pairs"]:
            found = run_pair(embeddings.get(source, "lite"), embeddings.get(target, "lite"), change)
            result["pairs"][name] = found
            file.write_text(json.dumps(result, indent=1) + "\n")
            print(name, found["best"], found["advised"], found["right"], flush=True)
    for name in RANKED:
        if name not in result["ranking"]:
            result["ranking"][name] = run_ranking(name, embeddings)
            file.write_text(json.dumps(result, indent=1) + "\n")
            print(name, taus(result["ranking"][name]), flush=True)
    given.out.with_suffix(".md").write_text(text(result))


if __name__ == "__main__":
    main()
