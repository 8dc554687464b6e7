"""The advice on pairs that its rule was never tuned on: twelve pairs of kinds of review, sixteen pairs of picture sets.

    pip download vaderSentiment==3.3.2 --no-binary :all: --no-deps
    tar xzf vaderSentiment-3.3.2.tar.gz
    tar xzf vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz
    python benchmarks/transfer_held_out.py --data DATA --reviews hutto_ICWSM_2014 --cache CACHE \
        --out benchmarks/results/transfer_held_out

The pairs, the measure and this protocol were fixed before any of them was run. Once they had been, the rule was changed
on the ten pairs of `transfer.py` (`choose` may take `pooled`), and ten fresh pairs were fixed before any of those was
run. The record is of the rules of their days; the rule of today has `transfer_blind.py`, and running this anew would
ask that one. The measure is that of `transfer.py`: the advice, from the first draw's labelled items, is right when the
accuracy of what it advises, over 8 draws, is not
below the lower end of the 95 % interval of the best strategy's. Negative transfer occurs when source + target
(`pooled`, or `multi_task` where the classes differ) is worse than the target alone with a 95 % interval below zero, and
is flagged when the interval that `fewshot advise` gives for it lies below zero.

Reviews: Hutto, Gilbert 2014 (ICWSM), MIT licence: sentences on films (Pang, Lee), of product reviews (Hu, Liu), of
editorials, and tweets, each with the mean of 20 people's ratings in -4..4; |rating| < 1 is left out, the sign is the
label. 20 labelled target sentences a class, tested on 200 a class, up to 500 a class of either domain.
Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

from itertools import permutations

from transfer_domains import KINDS
from transfer_pairs import (
    DRAWS,
    SHOTS,
    SLOW_DRAWS,
    Case,
    advice_table,
    gain_table,
    gap_table,
    measure,
    tally,
)

PICTURES = (
    Case("cifar", "caltech"),
    Case("caltech", "cifar"),
    Case("clothing", "grocery"),
    Case("grocery", "clothing"),
    Case("omniglot", "signs", encoder="lite:stage6"),
    Case("omniglot", "digits"),
    Case("digits", "signs", encoder="lite:stage6"),
    Case("signs", "digits", encoder="lite:stage6"),
    Case("cifar, 13 things", "caltech, 13 things"),
    Case("caltech, 13 things", "cifar, 13 things"),
    Case("caltech train, 20 classes", "caltech test, 20 classes", tests=10),
    Case("grocery shelf, test", "grocery shelf", shots=2, tests=5),
    Case("clothing", "clothing, test", shots=3),
    Case("signs, one half", "signs, other half", tests=10),
    Case("signs, one half", "signs, other half", "a third of the labels random", tests=10),
    Case("digits, one half", "digits, other half", "half of the classes exchanged"),
)
TEXT_SHOTS, TEXT_TESTS = 20, 200
TEXTS = tuple(Case(*kinds, shots=TEXT_SHOTS, tests=TEXT_TESTS) for kinds in permutations(KINDS, 2))
COMMAND = "python benchmarks/transfer_held_out.py --data DATA --reviews hutto_ICWSM_2014 --cache CACHE --out OUT"
AGAIN = tuple(Case(c.source, c.target, "", "st:all-MiniLM-L6-v2", TEXT_SHOTS, TEXT_TESTS) for c in TEXTS)
FRESH = (
    Case("grocery studio", "grocery shelf, test"),
    Case("signs, other half", "signs, one half", shots=3, tests=10),
    Case("digits, other half", "digits, one half", "a third of the labels random", shots=3),
    Case("caltech test, 20 classes", "caltech train, 20 classes", "half of the classes exchanged", shots=4, tests=10),
    Case("caltech", "signs"),
    Case("omniglot", "clothing"),
    Case("clothing, test", "clothing", "labels shifted by one", shots=10),
    Case("films", "products", shots=5, tests=TEXT_TESTS),
    Case("products", "films", "half of the labels shifted", shots=TEXT_SHOTS, tests=TEXT_TESTS),
    Case("tweets", "films", shots=50, tests=TEXT_TESTS),
)
PARTS = {"pictures": PICTURES, "texts": TEXTS, "texts, another encoder": AGAIN, "fresh": FRESH}


def section(title: str, pairs: dict[str, dict]) -> list[str]:
    """The tables of some pairs."""
    tables = ["", tally(pairs), "", *advice_table(pairs), "", *gain_table(pairs), "", *gap_table(pairs)]
    return ["", f"## {title}", *tables]


def text(result: dict) -> str:
    """The result as Markdown."""
    parts = result["parts"]
    held_out = parts["pictures"] | parts["texts"]
    return "\n".join(
        [
            "# The advice on pairs that its rule was never tuned on",
            "",
            f"The pairs and the measure were fixed before any was run. {DRAWS} draws ({SLOW_DRAWS} for `dann`, which "
            f"takes no part in the choice of the best), sources of at most 600 items; {SHOTS} labelled items a class "
            "unless the name of a pair says otherwise; accuracy in %, gains on no transfer (`ridge` on the target "
            "alone) with their 95 % half widths over draws, which share their test items. The advice is that of "
            "`fewshot advise` of its day, from 20 splits of the first draw's labelled items. What counts as right and "
            "as negative transfer stands in the docstring of the script. Made by `" + result["command"] + "`.",
            "",
            "All held-out pairs (pictures and texts by `lite`), as first run: " + tally(held_out),
            "",
            "**The rule was changed after these results had been seen**, on eight draws of the ten pairs of "
            "[transfer.md](transfer.md): where `pooled` gains more than one standard error and no less than "
            "`biased_ridge`, it is advised. By the recorded trials that rule is right in 22 of 28 pairs, on average "
            "0.9 points short of the best; these pairs are no longer held out for it. The warning 'it may hurt' was "
            "added then, too. Ten fresh pairs were fixed after the change and before any of them was run: "
            + tally(parts["fresh"]),
            "",
            "The rule of today was made on none of these pairs; it has others of its own in "
            "[transfer_blind.md](transfer_blind.md).",
            *section("Ten fresh pairs, by the changed rule", parts["fresh"]),
            *section("Pictures, as first run", parts["pictures"]),
            *section("Sentences, good or bad, from one kind to another (`lite`), as first run", parts["texts"]),
            *section("The same by `st:` all-MiniLM-L6-v2, not counted above", parts["texts, another encoder"]),
            "",
        ]
    )


if __name__ == "__main__":
    measure(PARTS, COMMAND, text, __doc__, slow=True)
