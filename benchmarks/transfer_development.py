"""Pairs of pictures and of texts that the rule of the advice was made on, beside the ten of `transfer.py`.

    python benchmarks/transfer_development.py --data DATA --reviews hutto_ICWSM_2014 --cache CACHE \
        --out benchmarks/results/transfer_development

Other classes, parts, label changes, numbers of labelled items and encoders than in `transfer_held_out.py`, which says
how to get the reviews; the sentences are others than there. The measure is that of `transfer.py`, without `dann`. On
these and those ten, by the accuracies of all strategies and the held-out scores of five draws of each, were chosen: the
members of `stacking`, their prior, the bound on their log-probabilities and when weights are learned, what `choose`
offers and by which score it chooses, and the levels of `fewshot.transfer.verdict`. An earlier rule was made on the
first two parts alone and tried on `transfer_fresh.py`, where it was right in 7 of 10 pairs of texts; "more texts" were
added then, and later rules made on all three parts. That of today (commit 9d99ee7) adds the chance of harm, fitted in
`transfer_chance.py`, whose levels were chosen here and there, and advises `pooled` only where it helps for certain.
Since then a source of other classes is used only where a strategy's Brier score is smaller by two standard errors: on
five draws of each of the eight pairs here and there, +0.13 points on average and never a loss, in place of -0.04 and up
to 4 lost. It changes no advice on the ten pairs, nor on those of `transfer_unseen.py`.
Interrupted, it goes on where it stopped; `--again` gives the advice anew, by the rule of today.
"""

from __future__ import annotations

from functools import partial

from transfer_pairs import (
    DRAWS,
    ROUNDS,
    SHOTS,
    TESTS,
    Case,
    advice_table,
    gain_table,
    gap_table,
    measure,
    tally,
)

SHIFTED, HALF, THIRD = "labels shifted by one", "half of the labels shifted", "a third of the labels random"
EXCHANGED, TEXT, TEXT_TESTS = "half of the classes exchanged", "st:all-MiniLM-L6-v2", 100
CLOTHES, FRUIT = ("clothing, test", "clothing"), ("grocery studio", "grocery")
DIGITS, SIGNS = ("digits, one half", "digits, other half"), ("signs, one half", "signs, other half")
THINGS = ("caltech train, 20 others", "caltech test, 20 others")
SMALL = ("cifar, 20 others, one half", "cifar, 20 others, other half")
FILMS, PRODUCTS, TWEETS = "films, second part", "products, second part", "tweets, second part"
PICTURES = (
    Case(*CLOTHES, shots=2),
    Case(*CLOTHES, shots=15),
    Case(*CLOTHES, HALF, shots=10),
    Case("clothing, test, half of the classes", "clothing"),
    Case(*CLOTHES, encoder="lite:stage6", shots=4),
    Case("grocery studio", "grocery shelf", shots=2, tests=5),
    Case(*FRUIT, SHIFTED, shots=3),
    Case("grocery shelf", "grocery shelf, test", THIRD, shots=3, tests=5),
    Case(*DIGITS, shots=2),
    Case(*DIGITS, SHIFTED),
    Case(*DIGITS, HALF, shots=10),
    Case(*SIGNS, HALF, shots=3, tests=10),
    Case(*SIGNS, EXCHANGED, shots=4, tests=10),
    Case("signs", "digits", shots=15),
    Case("digits", "signs", encoder="lite, text block", shots=8),
    Case(*THINGS, shots=2, tests=10),
    Case(*THINGS, EXCHANGED, shots=4, tests=10),
    Case("caltech train, 12 others", "caltech test, 20 others", shots=3, tests=10),
    Case(*SMALL, shots=2, tests=10),
    Case(*SMALL, THIRD, shots=6, tests=10),
    Case("cifar, 10 others, one half", "cifar, 20 others, other half", shots=4, tests=10),
    Case("caltech", "clothing", shots=15),
    Case("omniglot", "grocery", shots=3),
    Case("cifar", "clothing", shots=3),
    Case("grocery", "signs", shots=8),
    Case("signs", "clothing", shots=4),
)


def text_cases(*rows: tuple[str, str, str, str, int]) -> tuple[Case, ...]:
    """Cases of sentences: source, target, change, encoder, shots."""
    return tuple(
        Case(source, target, change, encoder, shots, TEXT_TESTS) for source, target, change, encoder, shots in rows
    )


TEXTS = text_cases(
    (PRODUCTS, FILMS, "", "lite", 10),
    (FILMS, PRODUCTS, "", "lite", 5),
    (FILMS, TWEETS, "", "lite", 5),
    (TWEETS, PRODUCTS, "", "lite", 20),
    (PRODUCTS, TWEETS, "", "lite", 40),
    (TWEETS, FILMS, "", "lite", 3),
    (FILMS, "editorials, weak", "", "lite", 20),
    ("editorials, weak", PRODUCTS, "", "lite", 10),
    ("tweets, weak", TWEETS, "", "lite", 20),
    (TWEETS, "tweets, weak", "", "lite", 10),
    (FILMS, PRODUCTS, THIRD, "lite", 20),
    (PRODUCTS, FILMS, SHIFTED, "lite", 10),
    (PRODUCTS, TWEETS, HALF, "lite", 20),
    ("editorials, weak", FILMS, "", "lite", 50),
    (FILMS, PRODUCTS, "", TEXT, 10),
    (TWEETS, PRODUCTS, "", TEXT, 5),
)
MORE = text_cases(
    (FILMS, PRODUCTS, "", "lite", 40),
    (PRODUCTS, FILMS, "", "lite", 3),
    (FILMS, TWEETS, "", "lite", 20),
    (TWEETS, FILMS, "", "lite", 20),
    (TWEETS, PRODUCTS, "", "lite", 5),
    (PRODUCTS, TWEETS, "", "lite", 10),
    ("editorials, weak", TWEETS, "", "lite", 10),
    (TWEETS, "editorials, weak", "", "lite", 5),
    (PRODUCTS, "editorials, weak", "", "lite", 40),
    ("tweets, weak", PRODUCTS, "", "lite", 5),
    ("tweets, weak", FILMS, "", "lite", 10),
    ("editorials, weak", FILMS, "", "lite", 5),
    (FILMS, "tweets, weak", "", "lite", 5),
    (PRODUCTS, "tweets, weak", "", "lite", 20),
    ("editorials, weak", "tweets, weak", "", "lite", 10),
    (FILMS, TWEETS, "", TEXT, 10),
    (PRODUCTS, FILMS, "", TEXT, 20),
    (TWEETS, "tweets, weak", "", TEXT, 5),
    ("editorials, weak", PRODUCTS, "", TEXT, 20),
    (FILMS, TWEETS, SHIFTED, "lite", 10),
    (TWEETS, PRODUCTS, HALF, "lite", 10),
    (PRODUCTS, FILMS, THIRD, "lite", 5),
    (TWEETS, FILMS, THIRD, "lite", 20),
    ("editorials, weak", PRODUCTS, SHIFTED, TEXT, 20),
)
TITLE = "# The advice on the pairs that its rule was made on"
ABOUT = (
    f"{DRAWS} draws, sources of at most 600 items; {SHOTS} labelled items a class unless the name of a pair says "
    f"otherwise; accuracy in % on up to {TESTS} pictures or {TEXT_TESTS} texts a class that no draw holds, gains on no "
    "transfer (`ridge` on the target alone) with their 95 % half widths over draws, which share their test items. The "
    f"advice is that of `fewshot advise` with {ROUNDS} rounds on the first draw's labelled items. The measure is that "
    "of [transfer.md](transfer.md), which has ten more such pairs. Weak sentences are those rated 0.4 to 1 in size."
)


def text(result: dict, title: str, about: str) -> str:
    """The result as Markdown."""
    parts = result["parts"]
    lines = [title, "", f"{about} Made by `{result['command']}`.", ""]
    lines += ["All: " + tally({k: p for part in parts.values() for k, p in part.items()})]
    for name, pairs in parts.items():
        tables = ["", tally(pairs), "", *advice_table(pairs), "", *gain_table(pairs), "", *gap_table(pairs)]
        lines += ["", f"## {name[0].upper()}{name[1:]}", *tables]
    return "\n".join(lines) + "\n"


def main(name: str, parts: dict[str, tuple[Case, ...]], title: str, about: str) -> None:
    """Measure all cases of a script and write both files."""
    command = f"python benchmarks/{name}.py --data DATA --reviews hutto_ICWSM_2014 --cache CACHE --out OUT"
    measure(parts, command, partial(text, title=title, about=about), title.lstrip("# "), slow=False)


if __name__ == "__main__":
    main("transfer_development", {"pictures": PICTURES, "texts": TEXTS, "more texts": MORE}, TITLE, ABOUT)
