"""Pairs of pictures and of texts fixed after an earlier rule of the advice and before any was run: its record.

    python benchmarks/transfer_fresh.py --data DATA --reviews hutto_ICWSM_2014 --cache CACHE \
        --out benchmarks/results/transfer_fresh

That rule is the one of the commit before the one that added this file. Classes, parts, sentences or ways between sets
are others than in `transfer_development.py`, whose measure this has, and than in `transfer_held_out.py`. Each was run
once. Since then the rule was made anew, on none of these pairs; `transfer_blind.py` has pairs fixed after the rule of
today, and running this anew would ask that one.
"""

from __future__ import annotations

from transfer_development import ABOUT, EXCHANGED, HALF, SHIFTED, TEXT, THIRD, main, text_cases
from transfer_pairs import Case

PICTURES = (
    Case("caltech train, 20 fresh", "caltech test, 20 fresh", tests=10),
    Case("caltech test, 20 fresh", "caltech train, 20 fresh", THIRD, shots=2, tests=10),
    Case("cifar, 20 fresh, one half", "cifar, 20 fresh, other half", tests=10),
    Case("cifar, 20 fresh, other half", "cifar, 20 fresh, one half", EXCHANGED, tests=10),
    Case("letters, one half", "letters, other half", encoder="lite:stage6", shots=3, tests=5),
    Case("letters, other half", "letters, one half", SHIFTED, encoder="lite:stage6", shots=4, tests=5),
    Case("digits, first third", "digits, second third", HALF, shots=4),
    Case("clothing", "clothing, test", EXCHANGED, shots=8, tests=8),
    Case("cifar, 13 things", "caltech, 13 things", encoder="lite:stage7", shots=2),
    Case("signs", "digits", encoder="lite:stage5", shots=3),
    Case("digits", "signs", shots=15),
    Case("grocery shelf, test", "grocery shelf", SHIFTED, tests=4),
    Case("cifar", "grocery", shots=4),
    Case("digits", "grocery"),
)
FILMS, PRODUCTS, TWEETS = "films, third part", "products, third part", "tweets, third part"
EDITORIALS = "editorials, weak, second part"
TEXTS = text_cases(
    (FILMS, PRODUCTS, "", "lite", 20),
    (PRODUCTS, FILMS, "", "lite", 3),
    (TWEETS, FILMS, "", "lite", 10),
    (FILMS, TWEETS, "", "lite", 20),
    ("products, weak", PRODUCTS, "", "lite", 5),
    ("films, weak", EDITORIALS, "", "lite", 30),
    (TWEETS, PRODUCTS, SHIFTED, "lite", 20),
    (PRODUCTS, TWEETS, THIRD, TEXT, 10),
    (EDITORIALS, TWEETS, "", TEXT, 5),
    (FILMS, PRODUCTS, HALF, "lite", 40),
)
TITLE = "# An earlier rule of the advice on fresh pairs, fixed after it"

if __name__ == "__main__":
    about = (
        "Fixed after the rule of that day and before any was run, and run once; for the rule of today see "
        f"[transfer_blind.md](transfer_blind.md). {ABOUT}"
    )
    main("transfer_fresh", {"pictures": PICTURES, "texts": TEXTS}, TITLE, about)
