"""One source/target pair measured: what each strategy gains or costs, what was advised, what was best; and tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transfer_domains import Embeddings, make_pair, review_digests

from fewshot.errors import MissingInput
from fewshot.features import Features
from fewshot.metrics.interval import Estimate, Floats, mean_interval
from fewshot.provenance import versions
from fewshot.registry import registry
from fewshot.strategy import Strategy
from fewshot.transfer.advice import POOLED, choose
from fewshot.transfer.gap import coral_distance, mmd, proxy_a_distance
from fewshot.transfer.trial import ALONE, OTHER, SAME, STACK, Pair, Trial, scores, spanned, thinned, try_out
from fewshot.transfer.verdict import MAY_HURT, beyond, leaning, surely, verdict

SHOTS, TESTS, DRAWS, SLOW_DRAWS = 5, 20, 8, 3  # labelled and most test items a class; SLOW_DRAWS: of dann
ROUNDS = 4  # of held-out items that the advice is made from
DECIDING = (POOLED, STACK)  # what the advice is made from where the classes are the same


@dataclass(frozen=True)
class Case:
    """A source, a target, how the source's labels are changed, the encoder, and labelled and test items a class."""

    source: str
    target: str
    change: str = ""
    encoder: str = "lite"
    shots: int = SHOTS
    tests: int = TESTS

    @property
    def name(self) -> str:
        notes = [self.change] * bool(self.change)
        notes += [self.encoder] * (self.encoder != "lite") + [f"{self.shots} shots"] * (self.shots != SHOTS)
        return f"{self.source} -> {self.target}" + (f" ({', '.join(notes)})" if notes else "")


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


def accuracies(pair: Pair, names: Sequence[str], parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Floats]:
    """Accuracy of every strategy that can be tried, and of the target alone, on the rows to test with of each part."""
    found: dict[str, Floats] = {}
    for name in (ALONE, *names):
        strategy = registry().strategy(name)()
        try:
            found[name] = np.array([accuracy(strategy, pair, *map(torch.from_numpy, part)) for part in parts])
        except MissingInput:
            continue
    return found


def accuracy(strategy: Strategy, pair: Pair, learn: Tensor, test: Tensor) -> float:
    return float((scores(strategy, pair, learn, test).argmax(-1) == pair.labels[test]).double().mean())


def truth(found: dict[str, Floats]) -> dict[str, dict[str, object]]:
    """Accuracy of each strategy over the draws, and its gain on no transfer, paired; test items are the same ones."""
    gain = {name: mean_interval(values - found[ALONE]) for name, values in found.items()}
    return {
        name: {"accuracy": asdict(mean_interval(values)), "gain": asdict(gain[name]), "draws": values.tolist()}
        for name, values in found.items()
    }


def run_case(case: Case, source: Features, target: Features, *, slow: bool = True) -> dict[str, object]:
    """Measure all, and the advice from the first draw's labelled items, which is what a user has; `slow`: dann too."""
    pair = thinned(make_pair(source, target, case.change), 0)
    names = SAME if pair.shared > 1 else OTHER
    parts = draw(pair.labels.numpy(), case.shots, case.tests, DRAWS)
    full = accuracies(spanned(pair), names, parts)
    apart = truth(accuracies(spanned(pair), ["dann"], parts[:SLOW_DRAWS])) if slow else {}
    shown = of_rows(pair, parts[0][0])
    trial = try_out(shown, names, rounds=ROUNDS)
    return {
        "encoder": case.encoder,
        "fingerprint": target.fingerprint,
        "shots": case.shots,
        "shared classes": pair.shared,
        "classes": len(pair.classes),
        "source items": len(pair.source),
        "test items": len(parts[0][1]),
        "gap": gaps(pair.source, shown.target),
        "strategies": truth(full) | {name: row for name, row in apart.items() if name != ALONE},
        **judged(full, trial),
        "trial": {
            name: {"accuracy": float(trial.right(name).mean()), "brier": float(trial.brier(name).mean())}
            for name in trial.log_p
        },
    }


def advised_again(case: Case, record: dict, source: Features, target: Features) -> dict[str, object]:
    """The record with the advice of today's rule, from the same labelled items; accuracies of strategies stay."""
    pair = thinned(make_pair(source, target, case.change), 0)
    rows = draw(pair.labels.numpy(), case.shots, case.tests, DRAWS)[0][0]
    trial = try_out(of_rows(pair, rows), DECIDING if pair.shared > 1 else OTHER, rounds=ROUNDS)
    full = {n: np.array(s["draws"]) for n, s in record["strategies"].items() if len(s["draws"]) == DRAWS}
    return record | judged(full, trial)


def judged(full: dict[str, Floats], trial: Trial) -> dict[str, object]:
    """The advice of a trial against the accuracies on test items."""
    choice, best = choose(trial), max(full, key=lambda name: float(full[name].mean()))
    top = mean_interval(full[best])
    plain = "pooled" if "pooled" in full else "multi_task"
    said, skill, chance = trial.gain(plain), trial.skill(plain), trial.chance(plain)
    real = mean_interval(full[plain] - full[ALONE])
    return {
        "advised": choice,
        "advised gain": asdict(trial.gain(choice)),
        "best": best,
        "short of the best": asdict(mean_interval(full[best] - full[choice])),
        "right": bool(full[choice].mean() >= top.mean - top.half_width),
        "source + target": {
            "strategy": plain,
            "said": asdict(said),
            "skill": asdict(skill),
            "chance": chance,
            "verdict": verdict(said, skill, chance),
            "leaning": leaning(said, skill, chance),
            "real": asdict(real),
        },
    }


def gaps(source: Tensor, target: Tensor) -> dict[str, float]:
    found = mmd(source, target)
    return {
        "mmd2": found.mmd2,
        "p": found.p,
        "coral": coral_distance(source, target),
        "a_distance": proxy_a_distance(source, target),
    }


def tally(pairs: dict[str, dict]) -> str:
    """How often the advice was right, and how often a source that hurts was known to.

    Records made before the Brier score was asked have neither verdict nor leaning; theirs are by accuracy alone.
    """
    sides = [p["source + target"] for p in pairs.values()]
    real = [surely(Estimate(**s["real"])) for s in sides]
    told = [s.get("verdict", surely(Estimate(**s["said"]))) for s in sides]
    warned = [s.get("leaning", beyond(Estimate(**s["said"]), 1.0)) for s in sides]
    costly = sum(surely(Estimate(**p["strategies"][p["advised"]]["gain"])) < 0 for p in pairs.values())
    short = 100 * np.mean([p["short of the best"]["mean"] for p in pairs.values()])
    right, harmful = sum(p["right"] for p in pairs.values()), sum(r < 0 for r in real)
    flagged, known = (sum(r < 0 and t < 0 for r, t in zip(real, signs, strict=True)) for signs in (told, warned))
    false, wrong = (sum(r >= 0 and t < 0 for r, t in zip(real, signs, strict=True)) for signs in (told, warned))
    worst = sum(r > 0 and t < 0 for r, t in zip(real, warned, strict=True))
    chances = [s["chance"] for s in sides if "chance" in s]
    rule = f"a chance of harm from {100 * MAY_HURT:.0f} % on" if chances else "one standard error below 0"
    return (
        f"Advice right in {right} of {len(pairs)} pairs, on average {short:.1f} points short of the best; what it "
        f"advised is worse than no transfer for certain in {costly}. Negative transfer (source + target worse than the "
        f"target alone for certain) in {harmful} pairs: {flagged} flagged, {harmful - flagged} missed; {false} "
        f"false alarms in the other {len(pairs) - harmful}. With the warning 'it may hurt' ({rule}): {known} of "
        f"{harmful}, and {wrong} of the other {len(pairs) - harmful}, in {worst} of which the source helps for certain."
        + (f" The chance of harm is {100 * np.mean(chances):.0f} % on average." if chances else "")
    )


def percent(e: dict[str, float], sign: bool = False) -> str:
    return f"{100 * e['mean']:{'+' if sign else ''}.1f} ± {100 * e['half_width']:.1f}"


def advice_table(pairs: dict[str, dict]) -> list[str]:
    """What was advised and what was best, a row a pair."""
    lines = [
        "| source -> target | no transfer | best | advised | short of the best | right | source + target: said | is | "
        "chance of harm |",
        "|---" * 9 + "|",
    ]
    for name, p in pairs.items():
        told, rows = p["source + target"], p["strategies"]
        lines.append(
            f"| {name} | {percent(rows[ALONE]['accuracy'])} | {p['best']} {percent(rows[p['best']]['gain'], True)} | "
            f"{p['advised']} {percent(rows[p['advised']]['gain'], True)} | {percent(p['short of the best'])} | "
            f"{'yes' if p['right'] else 'no'} | {percent(told['said'], True)} | {percent(told['real'], True)} | "
            + (f"{100 * told['chance']:.0f} % |" if "chance" in told else "|")
        )
    return lines


def gain_table(pairs: dict[str, dict]) -> list[str]:
    """The gain of every strategy on no transfer."""
    names = list(dict.fromkeys(n for p in pairs.values() for n in p["strategies"] if n != ALONE))
    lines = ["| source -> target | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, p in pairs.items():
        cells = [percent(p["strategies"][n]["gain"], True) if n in p["strategies"] else "" for n in names]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def gap_table(pairs: dict[str, dict]) -> list[str]:
    """The distances of the domains."""
    lines = ["| source -> target | MMD^2 | p | CORAL | proxy A |", "|---" * 5 + "|"]
    for name, p in pairs.items():
        g = p["gap"]
        lines.append(f"| {name} | {g['mmd2']:.4f} | {g['p']:.3f} | {g['coral']:.2e} | {g['a_distance']:.2f} |")
    return lines


def run_cases(
    cases: Sequence[Case], done: dict, embeddings: Embeddings, save: Callable[[], None], *, slow: bool, again: bool
) -> None:
    """Measure the cases that are not done, and save after each; `again`: give those that are the advice of today."""
    for case in cases:
        old = done.get(case.name)
        if old and not again:
            continue
        sides = [embeddings.get(name, case.encoder) for name in (case.source, case.target)]
        found = advised_again(case, old, *sides) if old else run_case(case, *sides, slow=slow)
        done[case.name] = found
        save()
        print(case.name, found["best"], found["advised"], found["right"], flush=True)


def asked(about: str) -> argparse.ArgumentParser:
    """The options that all scripts of pairs have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="path without ending; writes .json and .md")
    parser.add_argument("--again", action="store_true", help="give pairs that are done the advice of today's rule")
    return parser


def measure(
    parts: dict[str, tuple[Case, ...]], command: str, text: Callable[[dict], str], about: str, *, slow: bool
) -> None:
    """Measure all cases of a script, going on where it stopped, and write both files."""
    parser = asked(about)
    parser.add_argument("--reviews", type=Path, required=True, help="folder hutto_ICWSM_2014")
    given = parser.parse_args()
    file, embeddings = given.out.with_suffix(".json"), Embeddings(given.data, given.cache, given.reviews)
    result = {"command": command, "versions": versions(), "reviews sha256": review_digests(given.reviews), "parts": {}}
    if file.exists():
        result = json.loads(file.read_text())

    def save() -> None:
        file.write_text(json.dumps(result, indent=1) + "\n")

    for part, cases in parts.items():
        run_cases(cases, result["parts"].setdefault(part, {}), embeddings, save, slow=slow, again=given.again)
    given.out.with_suffix(".md").write_text(text(result))
