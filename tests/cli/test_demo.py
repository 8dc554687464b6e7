"""fewshot demo: every step answers beside the truth, and the contact sheet is there."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("skimage")
stats = pytest.importorskip("scipy.stats")

from fewshot.cli import LazyGroup  # noqa: E402
from fewshot.registry import COMMAND_GROUP, Registry, load_group  # noqa: E402
from fewshot_plugins.demo.digits import NAMES, UNSEEN, wilson  # noqa: E402
from fewshot_plugins.demo.material import ATTRIBUTE_NAMES, PHOTOGRAPHS, digit_attributes, write_photographs  # noqa: E402


def test_demo_from_end_to_end(tmp_path: Path) -> None:
    own = LazyGroup("fewshot")  # not the program's own group, which other tests look at
    load_group(Registry(), COMMAND_GROUP, own)
    done = CliRunner().invoke(own, ["demo", "--out", str(tmp_path / "out"), "--encoder", "toy"])
    assert done.exit_code == 0, done.output
    assert [line[:2] for line in done.stdout.splitlines() if re.match(r"\d\.", line)] == ["1.", "2.", "3.", "4.", "5."]
    scores = re.findall(r"(\d+)/(\d+) right = ([\d.]+)%", done.stdout)
    assert [int(total) for _, total, _ in scores] == [len(PHOTOGRAPHS), 400, 40 * len(UNSEEN), 40 * len(UNSEEN)]
    for right, total, percent in scores:
        assert float(percent) == pytest.approx(100 * int(right) / int(total), abs=0.051)
    named = re.findall(r"^   (\S+): (.+?) \(0\.\d\d\)(, in truth .+)?$|^   (\S+): (.+?) \(1\.00\)", done.stdout, re.M)
    right = sum(1 for found in named if not found[2])
    assert right == int(scores[0][0])
    sheet = (tmp_path / "out" / "found.html").read_text()
    assert "a kitten" in sheet
    assert "data:image/jpeg;base64," in sheet


def test_every_photograph_comes_with_the_packages(tmp_path: Path) -> None:
    shown = write_photographs(tmp_path / "photos")
    assert sorted(shown.values()) == sorted(PHOTOGRAPHS.values())
    assert all(path.stat().st_size > 1000 for path in shown)


def test_attributes_tell_all_digits_apart() -> None:
    table = digit_attributes()
    assert table.classes == NAMES
    assert table.values.shape == (10, len(ATTRIBUTE_NAMES))
    seen = [row for name, row in zip(NAMES, table.values.tolist(), strict=True) if name not in UNSEEN]
    unseen = [row for name, row in zip(NAMES, table.values.tolist(), strict=True) if name in UNSEEN]
    assert all(unseen.count(row) == 1 and row not in seen for row in unseen)


@pytest.mark.parametrize(("right", "total"), [(0, 7), (9, 14), (14, 14), (371, 400)])
def test_interval_is_wilsons(right: int, total: int) -> None:
    wanted = stats.binomtest(right, total).proportion_ci(method="wilson")
    assert wilson(right, total) == pytest.approx((wanted.low, wanted.high), abs=1e-4)
