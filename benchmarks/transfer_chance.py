"""How often a source hurts that looks so on few held-out items: what `fewshot.transfer.chance` was fitted to.

    python benchmarks/transfer_chance.py --data DATA --reviews hutto_ICWSM_2014 --cache CACHE \
        --out benchmarks/results/transfer_chance

Pairs between the sets and kinds of `transfer_development.py`, with other labels, numbers of classes and of labelled
items, sizes of the source and encoders, drawn at random; none is a pair of any other record. Source + target (`pooled`,
or `multi_task` where the classes differ) hurts where its accuracy over 8 draws is below that of the target alone with a
95 % interval; the first 3 draws are looked at by the trial of `fewshot advise`. Half of the weight goes to sources as
they are, half to those whose labels were changed, so the chance is that of a source of either sort. Every figure of a
pair comes from regressions fitted without all pairs of the same two sets. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import transfer_development as development
import transfer_fresh
import transfer_held_out
import transfer_unseen
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from transfer_domains import Embeddings, make_pair, review_digests
from transfer_pairs import DRAWS, ROUNDS, Case, accuracies, draw, of_rows

import transfer
from fewshot.features import Features
from fewshot.metrics.interval import Estimate, Floats, mean_interval, t_quantile
from fewshot.provenance import versions
from fewshot.transfer import chance
from fewshot.transfer.chance import standard_error
from fewshot.transfer.trial import ALONE, spanned, thinned, try_out
from fewshot.transfer.verdict import LIKELY, MAY_HELP, MAY_HURT, beyond, surely

LOOKS = 3  # draws that the trial looks at
CHANGES = ("", development.SHIFTED, development.HALF, development.THIRD, development.EXCHANGED)
SIZES = (100, 250, 600)  # items of the source
FEW, FEW_SIZES = (2, 3, 5), (30, 60, 100, 250)  # classes that both have, and the source's items of them
SHOTS, TEXT_SHOTS, FOREIGN_SHOTS = (2, 3, 4, 5, 6, 8, 10, 15, 20), (3, 5, 8, 10, 15, 20, 30), (3, 5, 8, 12)
PICTURE_ENCODERS, TEXT_ENCODERS = ("lite", "lite, text block"), ("lite", development.TEXT)
FOREIGN = (
    ("digits", "grocery"),
    ("cifar", "digits, other half"),
    ("omniglot", "signs"),
    ("signs", "grocery"),
    ("caltech", "signs, other half"),
    ("clothing, test", "digits, other half"),
    ("digits, one half", "clothing"),
    ("omniglot", "clothing"),
)
Z, S, MISSING, PLAIN_Z = "gain", "skill", "missing classes", "gain, not shrunk"
MODELS = {"as used": (Z, S), "gain alone": (Z,), "with missing classes": (Z, S, MISSING), "not shrunk": (PLAIN_Z, S)}


@dataclass(frozen=True)
class Draw:
    """A pair, at most so many items of the source, and so many of the classes of both, or 0 for all."""

    case: Case
    size: int
    classes: int = 0

    @property
    def name(self) -> str:
        few = f" of {self.classes} classes" if self.classes else ""
        return f"{self.case.name}, source of at most {self.size}{few}"


def draws() -> list[Draw]:
    """What to measure, drawn with a fixed seed; pairs of other records are left out."""
    rng = np.random.default_rng(5)
    known = (*development.PICTURES, *development.TEXTS, *development.MORE)
    foreign = {(c.source, c.target) for c in development.PICTURES[-5:]} | set(FOREIGN)
    found = []
    for (source, target), tests in {(c.source, c.target): c.tests for c in known}.items():
        text = tests == development.TEXT_TESTS
        for change in () if (source, target) in foreign else CHANGES[: len(CHANGES) - text]:  # two classes: shifted
            for few in (False, False) if text else (False, False, True):
                shots = int(rng.choice(TEXT_SHOTS if text else SHOTS))
                encoder = str(rng.choice(TEXT_ENCODERS if text else PICTURE_ENCODERS))
                case = Case(source, target, change, encoder, shots, tests)
                size, classes = int(rng.choice(FEW_SIZES if few else SIZES)), int(rng.choice(FEW)) if few else 0
                found.append(Draw(case, size, classes))
    for source, target in sorted(foreign):
        for _ in range(3):
            shots, encoder = int(rng.choice(FOREIGN_SHOTS)), str(rng.choice(PICTURE_ENCODERS))
            found.append(Draw(Case(source, target, "", encoder, shots), int(rng.choice(SIZES))))
    others = (transfer.PAIRS, transfer_unseen.PICTURES, transfer_unseen.TEXTS, transfer_fresh.PICTURES)
    others += (transfer_fresh.TEXTS, *transfer_held_out.PARTS.values())
    taken = {case.name for part in (known, *others) for case in part}
    return [one for one in found if one.classes or one.case.name not in taken]


def sides(one: Draw, embeddings: Embeddings) -> tuple[Features, Features]:
    """Features of source and target, of some of the classes that both have if so few are wanted."""
    source, target = (embeddings.get(name, one.case.encoder) for name in (one.case.source, one.case.target))
    if not one.classes:
        return source, target
    both = [name for name in target.classes if name in source.classes]
    names = tuple(both[i] for i in np.random.default_rng(len(one.name)).permutation(len(both))[: one.classes])
    return only(source, names), only(target, names)


def only(features: Features, names: tuple[str, ...]) -> Features:
    """The items of some classes."""
    number = {features.classes.index(name): i for i, name in enumerate(names)}
    rows = [i for i, label in enumerate(features.labels) if label in number]
    labels = np.array([number[features.labels[i]] for i in rows])
    return replace(features, x=features.x[torch.tensor(rows)], labels=labels, classes=names)


def measured(one: Draw, embeddings: Embeddings) -> dict[str, object] | None:
    """Whether the source hurts, and what the trial says of it on each look; None where either has too few items."""
    case = one.case
    pair = thinned(make_pair(*sides(one, embeddings), case.change), 0, one.size)
    least = int(torch.bincount(pair.labels).min())
    tests = min(150 if case.tests == development.TEXT_TESTS else 60, least - case.shots - 1)
    if tests < 4 or len(pair.source_labels.unique()) < 2:
        return None
    plain = "pooled" if pair.shared > 1 else "multi_task"
    parts = draw(pair.labels.numpy(), case.shots, tests, DRAWS)
    full = accuracies(spanned(pair), [plain], parts)
    trials = [try_out(of_rows(pair, rows), [plain], rounds=ROUNDS) for rows, _ in parts[:LOOKS]]
    return {
        "couple": f"{case.source} -> {case.target}",
        "changed": bool(case.change),
        "missing": 1 - pair.shared / len(pair.classes),
        "real": asdict(mean_interval(full[plain] - full[ALONE])),
        "looks": [
            {"gain": asdict(t.gain(plain)), "skill": asdict(t.skill(plain)), "alone": asdict(t.accuracy(ALONE))}
            for t in trials
        ],
    }


def clues(look: dict, missing: float) -> dict[str, float]:
    """What a regression may use of one look; `z` and `s` are those of `fewshot.transfer.chance`."""
    gain, skill, alone = (Estimate(**look[name]) for name in ("gain", "skill", "alone"))
    spread = math.hypot(standard_error(gain), chance.ROUGH)
    shift = chance.WEIGHT * (chance.USUAL - alone.mean) / (alone.n + chance.WEIGHT)
    return {
        Z: (gain.mean - shift) / spread,
        S: skill.mean / math.hypot(standard_error(skill), chance.ROUGH_SKILL),
        MISSING: missing,
        PLAIN_Z: gain.mean / spread,
    }


def regression(rows: list[dict], names: tuple[str, ...]) -> LogisticRegression:
    x, hurts, weight = np.array([[r[n] for n in names] for r in rows]), column(rows, "hurts"), column(rows, "weight")
    return LogisticRegression(C=100.0).fit(x, hurts, sample_weight=weight)


def column(rows: list[dict], name: str) -> Floats:
    return np.array([float(r[name]) for r in rows])


def crossed(rows: list[dict], names: tuple[str, ...]) -> Floats:
    """Chance of harm of every row, from a regression without its two sets."""
    found = np.zeros(len(rows))
    for couple in {r["couple"] for r in rows}:
        model = regression([r for r in rows if r["couple"] != couple], names)
        here = [i for i, r in enumerate(rows) if r["couple"] == couple]
        found[here] = model.predict_proba([[rows[i][n] for n in names] for i in here])[:, 1]
    return found


def rows_of(pairs: dict[str, dict]) -> list[dict]:
    """One row a look."""
    changed = np.mean([p["changed"] for p in pairs.values()])
    rows = []
    for p in pairs.values():
        sign, weight = surely(Estimate(**p["real"])), 0.5 / (changed if p["changed"] else 1 - changed)
        for look in p["looks"]:
            gain, skill = Estimate(**look["gain"]), Estimate(**look["skill"])
            seen = beyond(skill, t_quantile(0.95, skill.n - 1))
            sure = surely(gain) or (seen if seen * gain.mean > 0 else 0)
            leans = sure or (beyond(skill, 1.0) if beyond(skill, 1.0) * gain.mean > 0 else 0)
            row = {"couple": p["couple"], "hurts": sign < 0, "helps": sign > 0, "weight": weight}
            rows.append(row | clues(look, p["missing"]) | {"sure": sure, "leans": leans})
    return rows


def share(flag: Floats, of: Floats, weight: Floats) -> str:
    return f"{100 * np.average(flag[of > 0], weights=weight[of > 0]):.0f}"


def text(result: dict) -> str:
    """The result as Markdown."""
    rows = rows_of(result["pairs"])
    hurts, helps, weight = column(rows, "hurts"), column(rows, "helps"), column(rows, "weight")
    said, sure, leans = crossed(rows, MODELS["as used"]), column(rows, "sure"), column(rows, "leans")
    model = regression(rows, MODELS["as used"])
    used = ", ".join(f"{v:.2f}" for v in (*model.intercept_, *model.coef_[0]))
    lines = ["# How often a source hurts that looks so on few items", ""]
    lines += [f"{len(result['pairs'])} pairs, {len(rows)} looks; see `benchmarks/transfer_chance.py`. Made by"]
    lines += [f"`{result['command']}`. Half of the weight goes to sources as they are.", ""]
    lines += [f"Fitted to all (`BASE`, `PER_GAIN`, `PER_SKILL`): {used}.", ""]
    lines += ["| the chance uses | log-loss | area under ROC |", "|---|---|---|"]
    for name, names in MODELS.items():
        p = crossed(rows, names)
        loss = np.average(-np.log(np.where(hurts > 0, p, 1 - p)), weights=weight)
        lines.append(f"| {name} | {loss:.3f} | {roc_auc_score(hurts, p, sample_weight=weight):.3f} |")
    lines += ["", "| chance said | looks | said on average | hurt |", "|---|---|---|---|"]
    edges = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0)
    for low, high in pairwise(edges):
        here = (said >= low) & ((said < high) | (high == 1))
        mean, real = (100 * np.average(v[here], weights=weight[here]) for v in (said, hurts))
        lines.append(f"| {100 * low:.0f} to {100 * high:.0f} % | {here.sum()} | {mean:.0f} % | {real:.0f} % |")
    flags = {
        "hurts for certain, without the chance": sure < 0,
        f"hurts for certain, and a chance from {100 * LIKELY:.0f} % on": (sure < 0) & (said >= LIKELY),
        "may hurt, by one standard error of the Brier score": leans < 0,
        f"may hurt, by a chance from {100 * MAY_HURT:.0f} % on": (said >= MAY_HURT) | ((sure < 0) & (said >= LIKELY)),
        "helps for certain, without the chance": sure > 0,
        f"helps for certain, and a chance below {100 * MAY_HURT:.0f} %": (sure > 0) & (said < MAY_HURT),
        "may help, by one standard error of the Brier score": leans > 0,
        f"may help, by a chance below {100 * MAY_HELP:.0f} %": (said < MAY_HELP) | ((sure > 0) & (said < MAY_HURT)),
    }
    lines += ["", "Said of so many percent of the looks at sources that hurt, help, or do neither for certain:", ""]
    lines += ["| said | hurt | help | neither |", "|---|---|---|---|"]
    for name, flag in flags.items():
        cells = (share(flag, of, weight) for of in (hurts, helps, 1 - hurts - helps))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reviews", type=Path, required=True, help="folder hutto_ICWSM_2014")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="path without ending; writes .json and .md")
    given = parser.parse_args()
    file, embeddings = given.out.with_suffix(".json"), Embeddings(given.data, given.cache, given.reviews)
    command = "python benchmarks/transfer_chance.py --data DATA --reviews hutto_ICWSM_2014 --cache CACHE --out OUT"
    digests = review_digests(given.reviews)
    result = {"command": command, "versions": versions(), "reviews sha256": digests, "pairs": {}}
    if file.exists():
        result = json.loads(file.read_text())
    for one in draws():
        if one.name in result["pairs"]:
            continue
        if found := measured(one, embeddings):
            result["pairs"][one.name] = found
            file.write_text(json.dumps(result, indent=1) + "\n")
            print(one.name, f"{100 * found['real']['mean']:+.1f}", flush=True)
    given.out.with_suffix(".md").write_text(text(result))


if __name__ == "__main__":
    main()
