"""advise(): what to transfer, when, and how, with the reasons, from measurements on the user's own data."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fewshot.database import is_store
from fewshot.metrics.interval import Estimate
from fewshot.transfer.trial import ALONE, STACK, Pair, Trial, candidates, learns_from_source, try_out
from fewshot.transfer.verdict import beyond, leaning, needed, negligible, surely, verdict
from fewshot.transfer.what import Suitability, ranked
from fewshot.transfer.when import Gap, Quadrant, measure_gap, quadrant

POOLED = "pooled"  # source and target as one domain
PLAIN = (POOLED, "multi_task")  # what "with the source" means, for a source of the same classes and of others
TUNABLE = ("lite", "timm", "clip")  # prefixes of encoders that `fewshot finetune` takes
ALIKE = ("none", "helps", "hurts")  # what a sign stands for in JSON
MANY = 1000  # labelled items a class, beyond which their number says no more


@dataclass(frozen=True, slots=True)
class Advice:
    """The three answers."""

    what: tuple[tuple[Suitability, float], ...]  # encoders with their mean ranks, best first
    encoder: str  # the one that all below was measured with
    gap: Gap
    quadrant: Quadrant
    plain: str  # the strategy that stands for "source and target together"
    gain: Estimate  # of its accuracy over the target alone's
    skill: Estimate  # how much smaller its Brier score is
    chance: float  # that it is worse than the target alone
    classes: int  # of the target
    accuracy: dict[str, Estimate]  # of every strategy tried, and its gain
    gains: dict[str, Estimate]
    left_out: dict[str, str]
    strategy: str  # the one to use
    command: str
    tuning: str = ""  # the command that fine-tunes, where the quadrant says so and the encoder can be

    @property
    def verdict(self) -> str:
        """`helps`, `hurts`, `no difference` or `cannot tell`; see `fewshot.transfer.verdict`."""
        sign = verdict(self.gain, self.skill, self.chance)
        return ("no difference" if negligible(self.gain) else "cannot tell", "helps", "hurts")[sign]

    @property
    def when(self) -> str:
        """The verdict in words."""
        size = f"{100 * abs(self.gain.mean):.1f} +- {100 * self.gain.half_width:.1f} points"
        sign = "+-"[self.gain.mean < 0]
        if self.verdict in ("no difference", "cannot tell"):
            return f"{self.verdict}: with the source {sign}{size}{self._doubt}"
        plain = surely(self.gain) != 0
        told = f"by {size}" if plain else f"({sign}{size}; probabilities {self._probabilities} for certain)"
        rest = ": leave it out, or let a strategy weigh it" if self.verdict == "hurts" else ""
        return f"the source {self.verdict} {told}{rest}"

    @property
    def _doubt(self) -> str:
        """What is likely, and how many labels would tell; nothing where that would not matter."""
        hint = ("", "; it may help", "; it may hurt")[leaning(self.gain, self.skill, self.chance)]
        if negligible(self.gain) and not hint:
            return ""
        said = f"{hint} (chance of harm {100 * self.chance:.0f} %)"
        more = needed(self.gain)
        if negligible(self.gain) or more <= self.gain.n:
            return said
        each = math.ceil(more / self.classes)
        return f"{said}; {f'about {each}' if each <= MANY else f'more than {MANY}'} labelled items a class would tell"

    @property
    def _probabilities(self) -> str:
        return "better" if self.skill.mean > 0 else "worse"

    @property
    def how(self) -> str:
        """Why this strategy."""
        if self.strategy == ALONE:
            return "no strategy offered has better probabilities on held-out items than the target alone"
        gain = self.gains[self.strategy]
        size = f"{100 * gain.mean:+.1f} +- {100 * gain.half_width:.1f} points on the target alone"
        if self.strategy == STACK:
            return f"it blends ways to use the source, and leaves it out where held-out items contradict it: {size}"
        if STACK in self.accuracy:
            return f"the source is good as it is: surely better probabilities on held-out items than {STACK}; {size}"
        return f"best probabilities on held-out items of {len(self.accuracy)} tried: {size}"

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
                "skill": asdict(self.skill),
                "chance of harm": self.chance,
                "leaning": ALIKE[leaning(self.gain, self.skill, self.chance)],
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
    rounds: int = 4,
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
    rounds
        how often each labelled item of the target is held out.
    texts
        the items are texts and no pictures, so that features of earlier layers are nothing to advise.

    Raises
    ------
    DataError
        when the target has too few items, or either has one class only.
    """
    trial = try_out(pair, candidates(pair, strategies), rounds=rounds, seed=seed)
    gap = measure_gap(pair.source, pair.target, pair.labels, pair.unlabeled)
    taking = [name for name in trial.log_p if learns_from_source(name)]
    plain = next((name for name in PLAIN if name in taking), trial.best(taking))
    rule = quadrant(gap, len(pair.labels), len(pair.classes), texts=texts)
    gains = {name: trial.gain(name) for name in trial.log_p if name != ALONE}
    chosen = choose(trial)
    return Advice(
        what=tuple(ranked(scored)),
        encoder=encoder,
        gap=gap,
        quadrant=rule,
        plain=plain,
        gain=trial.gain(plain),
        skill=trial.skill(plain),
        chance=trial.chance(plain),
        classes=len(pair.classes),
        accuracy={name: trial.accuracy(name) for name in trial.log_p},
        gains=gains,
        left_out=trial.left_out,
        strategy=chosen,
        command=command(chosen, encoder, *places),
        tuning="" if texts or not rule.large else tuning(encoder, places[1], similar=rule.similar),
    )


def choose(trial: Trial) -> str:
    """The strategy to use: `stacking`, or `pooled` where its Brier score on held-out items is surely smaller.

    The best of many on few items looks better than it is, so only these two are offered: one that gives the source no
    more weight than held-out items warrant, and one that trusts it as it is, which is best where the domains are alike.
    Surely means by more than one standard error over the items, and pooling must help for certain: where one cannot
    tell, it is not advised. Where the classes differ, or these were not tried, it is the one of all that were tried
    with the smallest score, if that is smaller than the target's alone by more than two standard errors. Else, and
    where even the choice hurts, it is the target alone.
    """
    if STACK in trial.log_p:
        alike = POOLED in trial.log_p and beyond(trial.skill(POOLED, STACK), 1.0) > 0 and told(trial, POOLED) > 0
        best = POOLED if alike else STACK
    else:
        best = trial.best()
        best = best if beyond(trial.skill(best), 2.0) > 0 else ALONE
    return ALONE if told(trial, best) < 0 else best


def told(trial: Trial, name: str) -> int:
    """The verdict on a strategy against the target alone: 1, 0 or -1."""
    return verdict(trial.gain(name), trial.skill(name), trial.chance(name))


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
