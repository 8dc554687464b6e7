"""The baseline of Omniglot's one-shot challenge: the modified Hausdorff distance (Dubuisson & Jain 1994) of ink pixels.

python benchmarks/modified_hausdorff.py DATA [--json benchmarks/results/modified_hausdorff.json]

DATA is the folder of all_runs.zip. Published error: 38.8 % (Lake, Salakhutdinov, Tenenbaum 2015).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fewshot.datasets.omniglot import read_challenge
from fewshot.images import open_image

Points = NDArray[np.float64]


def ink(source: bytes) -> Points:
    """Places of the dark pixels, around their mean.  -> [n, 2]"""
    found = np.argwhere(np.asarray(open_image(source).convert("L")) < 128).astype(float)
    return found - found.mean(0)


def distance(a: Points, b: Points) -> float:
    """The larger of the mean distances from each point of one set to the nearest of the other."""
    return max(cKDTree(b).query(a)[0].mean(), cKDTree(a).query(b)[0].mean())


def run_errors(folder: Path) -> list[int]:
    """Wrong answers of 20 in each run: the guess is the nearest training drawing."""
    items = read_challenge(folder)
    points = [ink(source) for source in items.sources]
    wrong = []
    for support, query in items.fixed:
        guesses = [min(support, key=lambda s, q=q: distance(points[s], points[q])) for q in query]
        wrong.append(sum(items.labels[g] != items.labels[q] for g, q in zip(guesses, query, strict=True)))
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wrong = run_errors(options.data)
    text = json.dumps({"what": __doc__.splitlines()[0], "wrong_of_20": wrong, "error": sum(wrong) / (20 * len(wrong))})
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
