"""The plan for a billion pictures takes its rates from the results that are committed."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from fewshot.build import INSERT
from fewshot.store import Store

ROOT = Path(__file__).parents[1]
PLAN = (ROOT / "docs" / "billion.md").read_text(encoding="utf-8")
CORES, _, _ = PLAN.partition("A GPU changes the balance")
# the first cells of a line in the plan's table of hours, and the row of the results that it is about
LINE = re.compile(r"^\| (ordinary|large)[^|`]*, `([\w:-]+)` \| ([\d.]+) \| ([\d,]+) \|$", re.MULTILINE)


@pytest.fixture
def measured() -> dict[tuple[str, str], float]:
    """Pictures a second of a core, by their size and encoder."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "speed_pipeline.json").read_text(encoding="utf-8"))["rows"]
    return {(row["pictures"], row["encoder"]): row["images_per_s"] / 2 for row in rows if row["openvino"]}


def test_hours_follow_from_measured_rates(measured):
    lines = LINE.findall(CORES)
    assert len(lines) == 7
    for pictures, encoder, rate, hours in lines:
        assert float(rate) == pytest.approx(measured[pictures, encoder], rel=0.01)
        assert int(hours.replace(",", "")) == pytest.approx(1e9 / measured[pictures, encoder] / 3600, rel=0.01)


def test_the_price_follows_from_the_hours(measured):
    (price, *told) = re.findall(r"([\d.]+) a core hour .* cost (\d+), large ones (\d+)", PLAN.replace("\n", " "))[0]
    for pictures, cost in zip(("ordinary", "large"), told, strict=True):
        assert int(cost) == round(float(price) * 1e9 / measured[pictures, "lite"] / 3600)


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


def test_a_row_of_the_database_takes_what_is_told(tmp_path):
    """3,000 files in folders of 30, in the order in which a build takes them; the label is the folder's name."""
    count, batch = 3000, 250
    digests = [hashlib.blake2b(str(i).encode(), digest_size=16).hexdigest() for i in range(count)]
    rows = []
    for number, digest in enumerate(digests):
        label = f"{number // 30:02}"
        path = f"/data/pictures/{label}/{number:06}-{digest}"[:56] + ".jpg"
        assert len(path) == 60
        rows.append((path, 100_000 + number, 1_700_000_000_123_456_789 + number, label, digest, "ok", ""))
    with Store.create(tmp_path / "index", encoder="toy", fingerprint="toy-1", dim=1) as store:
        for first in range(0, count, batch):
            with store.writing() as database:
                store.append(digests[first : first + batch], np.ones((batch, 1), np.float32))
                database.executemany(INSERT, rows[first : first + batch])
        store.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        measured = (tmp_path / "index" / "store.sqlite").stat().st_size / count
    ((told, billion),) = re.findall(r"path of 60 characters.* \| about (\d+) B \| ([\d.]+) TB \|", PLAN)
    assert int(told) == pytest.approx(measured, rel=0.05)
    assert float(billion) == int(told) / 1000
    assert f"{int(told) / 1000} KB a picture make {told} GB" in PLAN
    assert f"{int(told) / 1000} GB of database" in PLAN
