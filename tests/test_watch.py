"""An index follows its folder while it is watched, waits for other writers, and ends when it is told to."""

import pytest
from PIL import Image

import fewshot.watch as watch_module
from fewshot.encoders.toy import ToyEncoder
from fewshot.errors import InvalidOption, OutputError
from fewshot.store import Store
from fewshot.watch import watch


class Stop(Exception):
    pass


def test_what_happens_between_two_looks_is_in_the_index(tmp_path, monkeypatch):
    photos, out, told, sizes, loads = tmp_path / "photos", tmp_path / "index", [], [], []
    photos.mkdir()
    Image.new("RGB", (4, 4), "red").save(photos / "1.png")
    create = ToyEncoder.create
    monkeypatch.setattr(ToyEncoder, "create", lambda spec, device: loads.append(spec) or create(spec, device))
    writer = []

    def look(seconds):
        assert seconds == 0.5
        with Store.open(out) as store:
            sizes.append(len(store.entries()))
        step = len(sizes)
        if step == 1:
            Image.new("RGB", (4, 4), "blue").save(photos / "2.png")
        elif step == 3:
            writer.append(Store.open(out, write=True))
            (photos / "1.png").unlink()
        elif step == 4:
            writer.pop().close()
        elif step == 6:
            raise Stop

    with pytest.raises(Stop):
        watch([photos], out, encoder="toy", device="cpu", interval=0.5, tell=told.append, sleep=look)
    assert sizes == [1, 2, 2, 2, 1, 1]
    assert [what.embedded for what in told[:2]] == [1, 1]  # the first build is told once
    assert len(loads) == 2  # once by the first build, once for all that follows
    assert [str(what) for what in told if "waiting" in str(what)] == [
        f"waiting: {out} is being written by another process; try again when it is done"
    ]
    assert any(getattr(what, "gone", 0) == 1 for what in told)
    Store.open(out, write=True).close()  # nothing is locked


def test_a_file_is_looked_at_again_when_its_permissions_change(tmp_path, monkeypatch):
    photos, told, looks = tmp_path / "photos", [], []
    photos.mkdir()
    for name in "12":
        Image.new("RGB", (4, 4), "red").save(photos / f"{name}.png")
    (photos / "2.png").write_bytes(b"no picture")

    def look(seconds):
        looks.append(len(told))
        if len(looks) == 2:
            (photos / "2.png").chmod(0o600)
        elif len(looks) == 3:
            (photos / "3.png").write_bytes(b"nor this")
        elif len(looks) == 5:
            raise Stop

    updates = []
    real = watch_module.update
    monkeypatch.setattr(watch_module, "update", lambda *a, **b: updates.append(len(looks)) or real(*a, **b))
    with pytest.raises(Stop):
        watch([photos], tmp_path / "index", encoder="toy", device="cpu", tell=told.append, sleep=look)
    assert updates == [0, 2, 3]
    assert [what.skipped for what in told if what.skipped] == [1, 2]  # each but once


def test_what_it_waits_for_is_told_once(tmp_path):
    photos, told, looks = tmp_path / "photos", [], []
    photos.mkdir()
    Image.new("RGB", (4, 4), "red").save(photos / "1.png")

    def look(seconds):
        looks.append(seconds)
        if len(looks) in (1, 4):
            photos.rename(tmp_path / "away")
        elif len(looks) == 3:
            (tmp_path / "away").rename(photos)
        elif len(looks) == 6:
            raise Stop

    with pytest.raises(Stop):
        watch([photos], tmp_path / "index", encoder="toy", device="cpu", tell=told.append, sleep=look)
    assert ["waiting" in str(what) for what in told] == [False, True, True]


def test_an_index_that_goes_or_cannot_be_written_is_waited_for(tmp_path, monkeypatch):
    photos, out, told, looks = tmp_path / "photos", tmp_path / "index", [], []
    photos.mkdir()
    Image.new("RGB", (4, 4), "red").save(photos / "1.png")
    real = watch_module.update

    def full(*args, **kwargs):
        monkeypatch.setattr(watch_module, "update", real)
        raise OutputError("no space left")

    def look(seconds):
        looks.append(len(told))
        if len(looks) == 1:
            out.rename(tmp_path / "away")
        elif len(looks) == 3:
            (tmp_path / "away").rename(out)
            Image.new("RGB", (4, 4), "blue").save(photos / "2.png")
            monkeypatch.setattr(watch_module, "update", full)
        elif len(looks) == 5:
            raise Stop

    with pytest.raises(Stop):
        watch([photos], out, encoder="toy", device="cpu", tell=told.append, sleep=look)
    assert looks == [1, 2, 2, 3, 4]
    assert f"waiting: {out} is not an index" in told[1]
    assert told[2] == "waiting: no space left"
    assert told[3].embedded == 1
    monkeypatch.setattr(watch_module, "update", full)
    with pytest.raises(OutputError):
        watch([photos], out, device="cpu", sleep=look)


@pytest.mark.parametrize("interval", [float("nan"), float("inf"), 0, -1])
def test_an_interval_that_is_none(tmp_path, interval):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "1.png")
    with pytest.raises(InvalidOption, match="interval must be above 0"):
        watch([tmp_path], tmp_path / "index", encoder="toy", interval=interval)
    assert not (tmp_path / "index").exists()
