"""Generalised zero-shot as a user types it: a table of attributes, examples of some of its classes, queries of all."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fewshot.cli import cli
from fewshot.registry import registry

SEEN = {"black": (0, 0, 0), "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
UNSEEN = {"cyan": (0, 1, 1), "magenta": (1, 0, 1)}
STRATEGIES = sorted(name for name, cls in registry().strategies.items() if "attributes" in cls.needs)


def write_pictures(folder: Path, colour: tuple[int, int, int], count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng([seed, number, *colour]).integers(-20, 21, (40, 48, 3))
        pixels = 25 + 205 * np.array(colour) + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("colours")
    for name, colour in SEEN.items():
        write_pictures(root / "support" / name, colour, 4, 0)
    for name, colour in (SEEN | UNSEEN).items():
        write_pictures(root / "queries" / name, colour, 3, 1)
    rows = ["class,r,g,b", *(f"{name},{r},{g},{b}" for name, (r, g, b) in (SEEN | UNSEEN).items())]
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    words = ["classify", root / "queries", "--support", root / "support", "--attributes", root / "table.csv"]
    return [*map(str, words), "--encoder", "toy", "--json"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_seen_and_unseen_classes_are_both_found(name: str, words: list[str]) -> None:
    done = CliRunner().invoke(cli, [*words, "-s", name])
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    right = [Path(row["path"]).parent.name for row in found if row["label"] == Path(row["path"]).parent.name]
    share = {
        group: sum(right.count(k) for k in names) / (3 * len(names))
        for group, names in (("seen", SEEN), ("unseen", UNSEEN))
    }
    assert share["seen"] >= 0.6, share
    assert share["unseen"] >= 0.5, share
    assert {label for row in found for label in [entry["label"] for entry in row["top"]]} <= {*SEEN, *UNSEEN}


def test_a_class_without_a_row_is_named(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("class,r\nred,1\ngreen,0\n")
    short = [str(tmp_path / "short.csv") if word.endswith("table.csv") else word for word in words]
    done = CliRunner().invoke(cli, short)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "which are not among the classes of the attributes table" in done.stderr
    assert "name every class that has examples, or leave those examples out" in done.stderr
