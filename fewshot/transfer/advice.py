"""advise(): what to transfer, when, and how, with the reasons, from measurements on the user's own data."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.database import is_store
from fewshot.metrics.interval import Estimate, t_quantile
from fewshot.transfer.trial import ALONE, Pair, Trial, candidates, try_out
from fewshot.transfer.what import Suitability, ranked
from fewshot.transfer.when import Gap, Quadrant, measure_gap, quadrant

POOLED = "pooled"  # source and target as one domain
PLAIN = (POOLED, "multi_task")  # what "with the source" means, for a source of the same classes and of others
TUNABLE = ("lite", "timm", "clip")  # prefixes of encoders that `fewshot finetune` takes
SAFE = "biased_ridge"  # chooses how far to trust the source by leaving examples out, down to not at all


@dataclass(frozen=True, slots=True)
class Advice:
    """The three answers."""

    what: tuple[tuple[Suitability, float], ...]  # encoders with their mean ranks, best first
    encoder: str  # the one that all below was measured with
    gap: Gap
    quadrant: Quadrant
    plain: str  # the strategy that stands for "source and target together"
    gain: Estimate  # of it over the target alone
    accuracy: dict[str, Estimate]  # of every strategy tried, and its gain
    gains: dict[str, Estimate]
    left_out: dict[str, str]
    strategy: str  # the one to use
    command: str
    tuning: str = ""  # the command that fine-tunes, where the quadrant says so and the encoder can be

    @property
    def verdict(self) -> str:
        """`helps`, `hurts` or `no difference`, by whether the interval of the gain excludes zero."""
        return ("no difference", "helps", "hurts")[surely(self.gain)]

    @property
    def when(self) -> str:
        """The verdict in words."""
        size = f"{100 * abs(self.gain.mean):.1f} +- {100 * self.gain.half_width:.1f} points"
        sign = "+-"[self.gain.mean < 0]
        leaning = ("", "; it may help", "; it may hurt")[likely(self.gain)]
        return {
            "helps": f"the source helps by {size}",
            "hurts": f"the source hurts by {size}: leave it out, or let a strategy weigh it",
            "no difference": f"no difference for certain: with the source {sign}{size}{leaning}",
        }[self.verdict]

    @property
    def how(self) -> str:
        """Why this strategy."""
        if self.strategy == ALONE:
            return "no strategy with the source is better than the target alone for certain"
        gain = self.gains[self.strategy]
        size = f"{100 * gain.mean:+.1f} +- {100 * gain.half_width:.1f} points on the target alone"
        if surely(gain) > 0:
            first = max(self.accuracy, key=lambda name: self.accuracy[name].mean) == self.strategy
            return f"{f'best of {len(self.accuracy)} tried' if first else 'better for certain'}: {size}"
        if self.strategy == POOLED:
            return f"none is better for certain, but the source likely helps as it is: {size}"
        return f"none is better for certain, and this one trusts the source only as far as it helps: {size}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "what": [{**asdict(row), "mean_rank": rank} for row, rank in self.what],
            "encoder": self.encoder,
            "when": {
                "gap": asdict(self.gap),
                "strategy": self.plain,
                "gain": asdict(self.gain),
                "verdict": self.verdict,
                "leaning": ("none", "helps", "hurts")[likely(self.gain)],
                "text": self.when,
                "quadrant": asdict(self.quadrant),
            },
            "how": {
                "strategy": self.strategy,
                "reason": self.how,
                "command": self.command,
                "tuning": self.tuning,
                "accuracy": {name: asdict(e) for name, e in self.accuracy.items()},
                "gains": {name: asdict(e) for name, e in self.gains.items()},
                "left_out": self.left_out,
            },
        }


def advise(
    pair: Pair,
    scored: Sequence[Suitability],
    *,
    encoder: str,
    places: Sequence[str],
    strategies: Sequence[str] = (),
    repeats: int = 20,
    seed: int = 0,
    texts: bool = False,
) -> Advice:
    """Answer all three questions.

    Parameters
    ----------
    pair
        source and target as `encoder` embeds them.
    scored
        the encoders that were compared.
    places
        how the user wrote source and target, and the two indexes of a map if there is one, for the command.
    strategies
        strategies to try; none takes those that suit the classes.
    texts
        the items are texts and no pictures, so that features of earlier layers are nothing to advise.

    Raises
    ------
    DataError
        when the target has too few items, or either has one class only.
    """
    trial = try_out(pair, candidates(pair, strategies), repeats=repeats, seed=seed)
    gap = measure_gap(pair.source, pair.target, pair.labels, pair.unlabeled)
    plain = next((name for name in PLAIN if name in trial.accuracy), trial.best())
    rule = quadrant(gap, len(pair.labels), len(pair.classes), texts=texts)
    gains = {name: trial.gain(name) for name in trial.accuracy if name != ALONE}
    chosen = choose(trial)
    return Advice(
        what=tuple(ranked(scored)),
        encoder=encoder,
        gap=gap,
        quadrant=rule,
        plain=plain,
        gain=trial.gain(plain),
        accuracy={name: Estimate(float(v.mean()), math.nan, len(v)) for name, v in trial.accuracy.items()},
        gains=gains,
        left_out=trial.left_out,
        strategy=chosen,
        command=command(chosen, encoder, *places),
        tuning="" if texts or not rule.large else tuning(encoder, places[1], similar=rule.similar),
    )


def choose(trial: Trial) -> str:
    """The strategy to use: one that is better for certain, or else a safe one.

    A trial on few items is noisy, and the best of many looks better than it is. So the strategy of highest accuracy is
    taken only when the interval of its gain excludes zero. If none is, two remain: pooling, where it gains more than
    one standard error and no less than `biased_ridge`, which else is taken: it gives the source the weight that leaving
    examples out gives it, and a source that hurts when pooled may still help at a small weight. The target alone is
    taken where even that hurts for certain, or where it never gave the source any weight.
    """
    best = trial.best()
    if best != ALONE and surely(trial.gain(best)) > 0:
        return best
    if SAFE not in trial.accuracy:
        return ALONE
    weighed, pooled = trial.accuracy[SAFE], trial.accuracy.get(POOLED)
    if pooled is not None and likely(trial.gain(POOLED)) > 0 and pooled.mean() >= weighed.mean():
        return POOLED
    unused = np.array_equal(weighed, trial.accuracy[ALONE])
    return ALONE if unused or surely(trial.gain(SAFE)) < 0 else SAFE


def surely(gain: Estimate) -> int:
    """1 for a gain whose interval lies above zero, -1 for one below, 0 otherwise."""
    if math.isnan(gain.half_width) or abs(gain.mean) <= gain.half_width:
        return 0
    return 1 if gain.mean > 0 else -1


def likely(gain: Estimate) -> int:
    """1 for a gain of more than one standard error, -1 for a loss of more than one, 0 otherwise.

    Few labelled items seldom show a moderate harm for certain. This warns of it; where there is no difference, it does
    so one time in six.
    """
    if math.isnan(gain.half_width) or abs(gain.mean) * t_quantile(0.975, gain.n - 1) <= gain.half_width:
        return 0
    return 1 if gain.mean > 0 else -1


def command(strategy: str, encoder: str, source: str, target: str, *bridge: str) -> str:
    """What to run: the target alone, or with the source, through the map between two indexes if need be."""
    words = ["fewshot", "fit", "--support", target, "--encoder", encoder, "-s", strategy]
    if strategy != ALONE:
        words += ["--source", source, *(["--map", *bridge] if bridge else [])]
    return shlex.join([*words, "--out", "target.fewshot"])


def tuning(encoder: str, target: str, *, similar: bool) -> str:
    """What fine-tunes the last stages, or all; of a stage's encoder the whole one. Empty where none can be trained.

    An index cannot be trained on, since it holds no pictures.
    """
    base = re.sub(r":stage\d+", "", encoder)
    if base.partition(":")[0] not in TUNABLE or is_store(Path(target)):
        return ""
    words = ["fewshot", "finetune", "--data", target, "--encoder", base, *([] if similar else ["--freeze", "none"])]
    return shlex.join([*words, "--out", "target.w"])
