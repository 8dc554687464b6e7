"""One source/target pair measured: what each strategy gains or costs, what was advised, what was best; and tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transfer_domains import make_pair

from fewshot.features import Features
from fewshot.metrics.interval import Estimate, mean_interval
from fewshot.transfer.advice import choose, likely, surely
from fewshot.transfer.gap import coral_distance, mmd, proxy_a_distance
from fewshot.transfer.trial import ALONE, OTHER, SAME, Pair, Trial, corrected, run_parts, spanned, thinned, try_out

SHOTS, TESTS, DRAWS, SLOW_DRAWS = 5, 20, 8, 3  # labelled and most test items a class; SLOW_DRAWS: of dann
REPEATS = 20  # splits that the advice is made from


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


def truth(trial: Trial) -> dict[str, dict[str, object]]:
    """Accuracy of each strategy over the draws, and its gain on no transfer, paired; test items are the same ones."""
    gain = {name: corrected(values - trial.accuracy[ALONE], 0.0) for name, values in trial.accuracy.items()}
    return {n: {"accuracy": asdict(mean_interval(v)), "gain": asdict(gain[n])} for n, v in trial.accuracy.items()}


def run_case(case: Case, source: Features, target: Features) -> dict[str, object]:
    """Measure all, and the advice from the first draw's labelled items, which is what a user has."""
    pair = thinned(make_pair(source, target, case.change), 0)
    names = SAME if pair.shared > 1 else OTHER
    parts = draw(pair.labels.numpy(), case.shots, case.tests, DRAWS)
    full = run_parts(spanned(pair), names, parts)
    slow = run_parts(spanned(pair), ["dann"], parts[:SLOW_DRAWS])
    shown = of_rows(pair, parts[0][0])
    advised = try_out(shown, names, repeats=REPEATS)
    return {
        "encoder": case.encoder,
        "fingerprint": target.fingerprint,
        "shots": case.shots,
        "shared classes": pair.shared,
        "classes": len(pair.classes),
        "source items": len(pair.source),
        "test items": len(parts[0][1]),
        "gap": gaps(pair.source, shown.target),
        "strategies": truth(full) | {"dann": truth(slow)["dann"]},
        **judged(full, advised),
        "left out": full.left_out,
        "trial": recorded(advised, len(pair.classes) * case.shots),
    }


def recorded(trial: Trial, items: int) -> dict[str, object]:
    """A trial as JSON: right answers of each strategy on each split, so that another rule can be asked later."""
    tested = round(items * trial.ratio / (1 + trial.ratio))
    counts = {name: " ".join(str(round(v * tested)) for v in values) for name, values in trial.accuracy.items()}
    return {"tested": tested, "learned from": items - tested, "right answers": counts}


def of_record(record: dict[str, object]) -> Trial:
    """The trial that `recorded` made a record of."""
    counts = {name: np.array(row.split(), np.int64) for name, row in record["right answers"].items()}
    accuracy = {name: row / record["tested"] for name, row in counts.items()}
    return Trial(accuracy, record["tested"] / record["learned from"], {})


def asked_again(pairs: dict[str, dict]) -> str:
    """What the present rule would have advised after the recorded trials, which another rule may have judged."""
    right, short = 0, []
    for p in pairs.values():
        chosen, best = (p["strategies"][name]["accuracy"] for name in (choose(of_record(p["trial"])), p["best"]))
        right += chosen["mean"] >= best["mean"] - best["half_width"]
        short.append(best["mean"] - chosen["mean"])
    return f"right in {right} of {len(pairs)} pairs, on average {100 * np.mean(short):.1f} points short of the best"


def judged(full: Trial, advised: Trial) -> dict[str, object]:
    """The advice of a trial against the accuracies on test items."""
    choice, best = choose(advised), full.best()
    top = mean_interval(full.accuracy[best])
    plain = "pooled" if "pooled" in full.accuracy else "multi_task"
    said, real = advised.gain(plain), corrected(full.accuracy[plain] - full.accuracy[ALONE], 0.0)
    return {
        "advised": choice,
        "advised gain": asdict(advised.gain(choice)),
        "best": best,
        "short of the best": asdict(corrected(full.accuracy[best] - full.accuracy[choice], 0.0)),
        "right": bool(full.accuracy[choice].mean() >= top.mean - top.half_width),
        "source + target": {"strategy": plain, "said": asdict(said), "real": asdict(real)},
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
    """How often the advice was right, and how often a source that hurts was known to."""
    sides = [p["source + target"] for p in pairs.values()]
    hurts = [surely(Estimate(**s["real"])) < 0 for s in sides]
    flagged = [surely(Estimate(**s["said"])) < 0 for s in sides]
    costly = sum(surely(Estimate(**p["strategies"][p["advised"]]["gain"])) < 0 for p in pairs.values())
    warned = [likely(Estimate(**s["said"])) < 0 for s in sides]
    both, known = (sum(a and b for a, b in zip(hurts, told, strict=True)) for told in (flagged, warned))
    short = 100 * np.mean([p["short of the best"]["mean"] for p in pairs.values()])
    right, harmful, harmless = sum(p["right"] for p in pairs.values()), sum(hurts), len(pairs) - sum(hurts)
    return (
        f"Advice right in {right} of {len(pairs)} pairs, on average {short:.1f} points short of the best; what it "
        f"advised is worse than no transfer for certain in {costly}. Negative transfer (source + target worse than the "
        f"target alone for certain) in {harmful} pairs: {both} flagged, {harmful - both} missed; {sum(flagged) - both} "
        f"false alarms in the other {harmless}. With the warning 'it may hurt' (one standard error below 0): {known} "
        f"of {harmful}, and {sum(warned) - known} of the other {harmless}."
    )


def percent(e: dict[str, float], sign: bool = False) -> str:
    return f"{100 * e['mean']:{'+' if sign else ''}.1f} ± {100 * e['half_width']:.1f}"


def advice_table(pairs: dict[str, dict]) -> list[str]:
    """What was advised and what was best, a row a pair."""
    lines = [
        "| source -> target | no transfer | best | advised | short of the best | right | source + target: said | is |",
        "|---" * 8 + "|",
    ]
    for name, p in pairs.items():
        told, rows = p["source + target"], p["strategies"]
        lines.append(
            f"| {name} | {percent(rows[ALONE]['accuracy'])} | {p['best']} {percent(rows[p['best']]['gain'], True)} | "
            f"{p['advised']} {percent(rows[p['advised']]['gain'], True)} | {percent(p['short of the best'])} | "
            f"{'yes' if p['right'] else 'no'} | {percent(told['said'], True)} | {percent(told['real'], True)} |"
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
