"""The plan for a billion pictures takes its rates from the results that are committed."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLAN = (ROOT / "docs" / "billion.md").read_text(encoding="utf-8")
# the first cells of a line in the plan's table of hours, and the row of the results that it is about
LINE = re.compile(r"^\| (ordinary|large)\D*, `([\w:-]+)`[^|]*\| ([\d.]+) \| ([\d,]+) \|$", re.MULTILINE)


def test_hours_follow_from_measured_rates():
    rows = json.loads((ROOT / "benchmarks" / "results" / "speed_pipeline.json").read_text(encoding="utf-8"))["rows"]
    measured = {(row["pictures"], row["encoder"]): row["images_per_s"] / 2 for row in rows if row["openvino"]}
    lines = LINE.findall(PLAN)
    assert len(lines) >= 4
    for pictures, encoder, rate, hours in lines:
        assert float(rate) == pytest.approx(measured[pictures, encoder], rel=0.01)
        assert int(hours.replace(",", "")) == pytest.approx(1e9 / measured[pictures, encoder] / 3600, rel=0.01)


def test_a_second_look_takes_what_was_measured():
    rows = json.loads((ROOT / "benchmarks" / "results" / "speed_store.json").read_text(encoding="utf-8"))["rows"]
    (seconds,) = (row["seconds"] for row in rows if (row["files"], row["job"]) == (100_000, "unchanged"))
    (told,) = re.findall(r"([\d.]+) seconds for 100,000", PLAN)
    assert float(told) == pytest.approx(seconds, abs=0.01)


def test_gpu_hours_follow_from_measured_rates():
    rows = json.loads((ROOT / "benchmarks" / "results" / "gpu.json").read_text(encoding="utf-8"))["pipeline"]
    alone = {row["encoder"]: row["model_alone_per_s"] for row in sorted(rows, key=lambda row: row["model_alone_per_s"])}
    stored = {(row["pictures"], row["encoder"]): row["images_second_half_per_s"] for row in rows}
    lines = re.findall(r"^\| (?:(ordinary|large)[^`|]*, )?`([\w:-]+)` \| ([\d,]+) \| (\d+) \|$", PLAN, re.MULTILINE)
    assert len(lines) == 5
    for pictures, encoder, rate, hours in lines:
        measured = stored[pictures, encoder] if pictures else alone[encoder]  # the network sees pictures of one size
        assert int(rate.replace(",", "")) == round(measured)
        assert int(hours) == round(1e9 / measured / 3600)
