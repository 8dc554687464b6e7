"""WaffleCLIP: the random-word control for class descriptions. Roth et al. 2023, arXiv:2306.07282."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fewshot import LinearHead, Strategy, Task, hookimpl, option
from fewshot_plugins.zero_shot import phrase_means

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = """
    able apple arm back ball band bank base bath bell bird boat body bone book box brick bridge bright broad bus
    cake call calm card care cart chair chain clock cloth cloud coal coat coin cold cook copper corn cotton crack
    cup curve damp dark deep desk dish door dress drink dust early east edge egg engine equal farm fast fire fish
    flag flat floor fold food foot fork frame free game glass gold grain great green ground hand hard heat high hole
    hook horn hour house ice ink iron island jewel join joke judge jump kettle key kick kind knee knife knot lamp
    land laugh leaf left letter level light line lock long loud low map mark market match meal metal milk mist month
    moon music nail narrow near needle nerve night noise north nut oil open orange oven page paint paper part path
    pen pipe plane plate play pocket point pot powder price print pull pump quick quiet rail rain range reason red
    rice ring river road roof room root round rule sail salt sand school screw sea seat sharp sheet ship shoe short
    side silk silver simple skin sky sleep slow smoke smooth snow soap soft song south spoon spring square stage
    stamp star steam step stick stone stop storm street sugar sun table tail tall tax thick thin thread thumb ticket
    tight tin toe top town train tray trick tube turn valley view voice walk wall warm watch wave wax way west wheel
    wide wind window wine winter wire wood wool word work yard year yellow young
""".split()  # noqa: SIM905 - a list of quoted words is harder to read


def waffle_phrases(names: Sequence[str], pairs: int = 15, seed: int = 0) -> list[list[str]]:
    """Write 2 * `pairs` meaningless descriptions of each class, the same for all classes.  -> a list for each name

    Each pair is one of two random words and one of two strings of as many random letters (section 3.2 of the paper),
    as in `a photo of a hen, which has copper knee.`
    """
    rng = torch.Generator().manual_seed(seed)

    def pick(count: int, most: int) -> list[int]:
        drawn: list[int] = torch.randint(most, (count,), generator=rng).tolist()
        return drawn

    endings = []
    for _ in range(pairs):
        words = [WORDS[i] for i in pick(2, len(WORDS))]
        strings = ["".join(LETTERS[i] for i in pick(len(word), len(LETTERS))) for word in words]
        endings += [" ".join(words), " ".join(strings)]
    return [[f"a photo of a {name}, which has {ending}." for ending in endings] for name in names]


@dataclass(frozen=True)
class Waffle(Strategy):
    """Score a query by its mean cosine to phrases made of the class name and random words.

    logit_k = scale mean_p z.e_kp, as `descriptions` does: what real descriptions gain beyond this is what their
    meaning gives, the rest is averaging. The strategy writes its phrases itself (`phrases`) from the class names; a
    Task made without them is scored on the phrases it holds.
    """

    name = "waffle"
    needs = frozenset({"text"})
    unseen = True
    paper = "Roth et al. 2023, arXiv:2306.07282"
    pairs: int = option(15, "pairs of random words and random letters a class (the paper's 15)", min=1, max=1000)
    seed: int = option(0, "seed of the random words; the paper averages results over 7", min=0)
    scale: float = option(30.0, "factor on the cosine; higher is more confident (100 for CLIP)", min=0.0)

    def phrases(self, names: Sequence[str]) -> list[list[str]]:
        """Write the phrases of each class."""
        return waffle_phrases(names, self.pairs, self.seed)

    def fit(self, task: Task) -> LinearHead:
        """Average the phrases of each class.  -> weight [*B, C, D]"""
        return LinearHead(self.scale * phrase_means(task))


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Register `waffle`."""
    register(Waffle)
