"""Transfer between real sets of pictures: what each strategy gains or costs, what was advised, and what was best.

    python benchmarks/transfer.py --data DATA --cache CACHE --out benchmarks/results/transfer

Ten source/target pairs: for each, 5 labelled target items a class, drawn 8 times; accuracy on target items that no draw
holds, without the source and with it by every strategy; and the advice, given from the first draw alone. Rules of the
advice were made on these pairs and those of `transfer_development.py`, so `transfer_blind.py` has others. Then the
ranking of seven encoders and feature depths by scores that train nothing, against their accuracy at 16 shots.
Interrupted, it goes on where it stopped; `--again` gives the advice anew, by the rule of today. Embeddings are kept in
CACHE.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from transfer_domains import BLOCKS, EACH, Embeddings
from transfer_pairs import (
    DRAWS,
    SHOTS,
    SLOW_DRAWS,
    TESTS,
    Case,
    advice_table,
    asked,
    draw,
    gain_table,
    gap_table,
    run_cases,
    tally,
)

from fewshot.features import Features
from fewshot.provenance import versions
from fewshot.registry import registry
from fewshot.strategy import fit
from fewshot.task import make_task
from fewshot.transfer.scores import h_score, logme, loo_ridge
from fewshot.transfer.trial import ALONE

DEPTHS = ("lite", "lite:stage5", "lite:stage6", "lite:stage7", "toy")
RANK_SHOTS, RANK_DRAWS = 16, 5
PAIRS = (
    Case("grocery studio", "grocery"),
    Case("grocery shelf, test", "grocery shelf"),
    Case("digits", "signs"),
    Case("signs", "digits"),
    Case("caltech", "clothing"),
    Case("caltech", "grocery"),
    Case("clothing, test", "clothing"),
    Case("clothing, test", "clothing", "labels shifted by one"),
    Case("clothing, test", "clothing", "half of the labels shifted"),
    Case("cifar", "signs"),
)
RANKED = ("clothing", "grocery", "signs", "digits", "caltech, 20 classes", "cifar, 20 classes")


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


def text(result: dict) -> str:
    """The result as Markdown."""
    pairs, ranking = result["pairs"], result["ranking"]
    lines = [
        "# Transfer between real sets of pictures",
        "",
        f"{SHOTS} labelled target items a class, {DRAWS} draws ({SLOW_DRAWS} for `dann`, "
        "which takes no part in the choice of the best), encoder `lite`, sources of "
        f"at most 600 items; accuracy in % on up to {TESTS} target items a class that no draw holds, gains on no "
        "transfer (`ridge` on the target alone) with their 95 % half widths over draws, which share their test items. "
        "The advice is what `fewshot advise` gives for the first draw's labelled items; it is right when the accuracy "
        "of what it advises lies within the interval of the best strategy's. Made by `" + result["command"] + "`. "
        "Earlier rules of the advice were made on these pairs and those of "
        "[transfer_development.md](transfer_development.md); that of today, commit 9d99ee7, was made on the latter and "
        "[transfer_chance.md](transfer_chance.md), and the advice below was given again by it (that of commit 30c92b2 "
        "was right in 10 of 10 too, flagged 2 of 3 pairs that hurt, 3 by the warning, and 1 of the other 7). "
        "[transfer_blind.md](transfer_blind.md) has pairs fixed after it, [transfer_unseen.md](transfer_unseen.md), "
        "[transfer_fresh.md](transfer_fresh.md) and [transfer_held_out.md](transfer_held_out.md) others new to earlier "
        "rules.",
        "",
        tally(pairs),
        "",
        *advice_table(pairs),
    ]
    lines += ["", "## Gain of every strategy", "", *gain_table(pairs), "", "## The gap", "", *gap_table(pairs)]
    lines += ["", f"## Which encoder: scores on {RANK_SHOTS} labelled items a class against accuracy", ""]
    lines += ["| data | encoder | LogME | H-score | leave-one-out | accuracy |", "|---" * 6 + "|"]
    for name, table in ranking.items():
        for encoder, r in table.items():
            lines.append(
                f"| {name} | {encoder} | {r['logme']:.3f} | {r['h_score']:.2f} | {100 * r['loo']:.1f} | "
                f"{100 * r['accuracy']:.1f} |"
            )
    found = {name: taus(table) for name, table in ranking.items()}
    lines += [
        "",
        "Kendall's tau of each score with the accuracy; `together` ranks by the mean of the three ranks. The last",
    ]
    lines += ["row leaves out `toy`, which is last everywhere and so makes it easier.", ""]
    lines += ["| data | LogME | H-score | leave-one-out | together |", "|---" * 5 + "|"]
    for name, t in found.items():
        lines.append(f"| {name} | " + " | ".join(f"{v:.2f}" for v in t.values()) + " |")
    fewer = [taus({e: row for e, row in table.items() if e != "toy"}) for table in ranking.values()]
    for name, rows in (("mean", list(found.values())), ("mean without `toy`", fewer)):
        if rows:
            means = np.mean([list(t.values()) for t in rows], 0)
            lines.append(f"| {name} | " + " | ".join(f"{v:.2f}" for v in means) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    given = asked(__doc__ or "").parse_args()
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

    def save() -> None:
        file.write_text(json.dumps(result, indent=1) + "\n")

    run_cases(PAIRS, result["pairs"], embeddings, save, slow=True, again=given.again)
    for name in RANKED:
        if name not in result["ranking"]:
            result["ranking"][name] = run_ranking(name, embeddings)
            save()
            print(name, taus(result["ranking"][name]), flush=True)
    given.out.with_suffix(".md").write_text(text(result))


if __name__ == "__main__":
    main()
