"""Several machines make the same index as one, also when one of them is lost on the way."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from fewshot import ray_engine
from fewshot.build import Counts, build_index
from fewshot.cli import cli
from fewshot.encoders.toy import ToyEncoder
from fewshot.errors import DataError
from fewshot.images import open_image
from fewshot.ray_engine import SHARDS, RayEngine, Worker, _merge
from fewshot.store import Store
from fewshot.upkeep import verify

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(120):
        Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).save(tmp_path / "photos" / f"{i:03}.png")
    (tmp_path / "photos" / "copy.png").write_bytes((tmp_path / "photos" / "000.png").read_bytes())
    (tmp_path / "photos" / "bad.jpg").write_text("no picture")
    return tmp_path / "photos"


class Here(types.ModuleType):
    """In place of Ray: does the work in this process and, like Ray, prints what it likes."""

    def __init__(self):
        super().__init__("ray")
        self.data = self
        self.page, self.exceptions = [], types.ModuleType("ray.exceptions")
        self.exceptions.RayError = type("RayError", (Exception,), {})

    @property
    def DataContext(self):  # noqa: N802
        return types.SimpleNamespace(get_current=lambda: types.SimpleNamespace())

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {"CPU": 1}

    def from_items(self, page, override_num_blocks):
        self.page = page
        return self

    def map_batches(self, worker, fn_constructor_kwargs, batch_size, **others):
        assert batch_size == 1
        self.worker = worker(**fn_constructor_kwargs)
        return self

    def iter_rows(self):
        for row in self.page:
            print("(raylet) a node was lost")
            told = self.worker({"files": np.array([row["files"]])})
            yield {key: str(values[0]) for key, values in told.items()}


@pytest.fixture
def here(monkeypatch):
    ray = Here()
    for name, module in {"ray": ray, "ray.data": ray, "ray.exceptions": ray.exceptions}.items():
        monkeypatch.setitem(sys.modules, name, module)


def check(out):
    assert verify(out) == []
    encoder = ToyEncoder(torch.device("cpu"))
    with Store.open(out) as store:
        assert len(store.entries()) == 121
        assert store.rows == 120
        assert [reason for _, reason in store.skipped()] == ["not a picture"]
        rows = store.embeddings()
        for entry in store.entries():
            want = encoder.encode_images([open_image(entry.path)])[0].numpy()
            np.testing.assert_allclose(rows[entry.row], want, atol=1e-6)
    assert not (out / SHARDS).exists() or list((out / SHARDS).iterdir()) == []


def files_of(folder, start=0, stop=None):
    found = [(str(path), path.stat()) for path in sorted(folder.iterdir())[start:stop]]
    return {"files": np.array([json.dumps([(path, at.st_size, at.st_mtime_ns) for path, at in found])])}


def test_shards_of_a_stopped_run_are_merged_first(photos, tmp_path, here):
    """Without Ray: everything is in shards already, so that there is nothing left to hand out."""
    out = tmp_path / "index"

    def engine(store, encoder, counts, batch, total):
        (store.path / SHARDS).mkdir()
        worker = Worker("toy", "toy-1", str(store.path / SHARDS), 16, "cpu")
        parts = files_of(photos, 0, 70), files_of(photos, 70), files_of(photos, 0, 70)
        names = {worker(files)["shard"][0] for files in parts}
        assert len(names) == 2
        (store.path / SHARDS / "torn.npz").write_bytes(b"half a shard")
        (store.path / SHARDS / "abc.lost-node.17").write_bytes(b"of a worker that was lost while it wrote")
        RayEngine(device="cpu")(store, encoder, counts, batch, total)

    counts = build_index([photos], out, encoder="toy", device="cpu", engine=engine)
    assert (counts.embedded, counts.copies, counts.skipped) == (120, 1, 1)
    check(out)


def test_a_shard_says_nothing_of_files_that_have_changed_or_of_another_encoder(photos, tmp_path, monkeypatch):
    (tmp_path / "shards").mkdir()
    worker = Worker("toy", "toy-1", str(tmp_path / "shards"), None, "cpu")
    (first,) = worker(files_of(photos, 0, 3))["shard"]
    (bad,) = worker(files_of(photos, 120, 121))["shard"]
    changed = sorted(photos.iterdir())[1]
    Image.new("RGB", (7, 7), "red").save(changed)
    counts = Counts()

    def engine(store, encoder, counts_of_build, batch, total):
        assert _merge(store, tmp_path / "shards" / first, counts) == (2, 0, 0)
        assert _merge(store, tmp_path / "shards" / bad, counts) == (0, 1, 0)
        monkeypatch.setattr(worker.encoder, "fingerprint", "toy-2")
        (foreign,) = worker(files_of(photos, 5, 9))["shard"]
        assert _merge(store, tmp_path / "shards" / foreign, counts) == (0, 0, 0)

    build_index([photos], tmp_path / "index", encoder="toy", device="cpu", engine=engine)
    with Store.open(tmp_path / "index") as store:
        assert [Path(entry.path).name for entry in store.entries()] == ["000.png", "002.png"]
        assert [Path(path).name for path, _ in store.skipped()] == ["bad.jpg"]
    build_index([photos], tmp_path / "index", device="cpu")
    check(tmp_path / "index")
    assert list((tmp_path / "shards").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "fingerprint", "stop", "shards", "text"),
    [
        (
            "toy",
            "toy-0",
            9,
            "shards",
            "toy is toy-1 here, and toy-0 where the build was started",
        ),
        ("nothing", "toy-1", 9, "shards", "nothing"),
        ("toy", "toy-1", 9, "elsewhere", "No such file or directory"),
        ("toy", "toy-1", 9, "shards", "every machine must have the pictures"),
    ],
    ids=["another version", "no encoder", "no folder", "no pictures"],
)
def test_a_worker_tells_why_it_cannot_embed(photos, tmp_path, name, fingerprint, stop, shards, text):
    (tmp_path / "shards").mkdir()
    files = files_of(photos, 0, stop)
    if "pictures" in text:
        photos.rename(tmp_path / "not mounted")
    (told,) = Worker(name, fingerprint, str(tmp_path / shards), None, "cpu")(files)["failure"]
    assert text in told
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_build_ends_with_what_a_worker_tells_and_stdout_stays_its_own(photos, tmp_path, monkeypatch, here):
    monkeypatch.setattr("fewshot.ray_engine.SHARD", 50)
    asked = ["index", "build", str(photos), "--out", str(tmp_path / "index"), "--encoder", "toy", "--engine", "ray"]
    real = ray_engine._write

    def full(target, encoder, files, batch):
        if any(path.endswith("060.png") for path, *_ in files):
            raise OSError(28, "No space left on device")
        real(target, encoder, files, batch)

    monkeypatch.setattr(ray_engine, "_write", full)
    result = CliRunner().invoke(cli, [*asked, "--json"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No space left on device; what was merged is kept" in result.stderr
    with Store.open(tmp_path / "index") as store:
        assert store.rows == 50
    monkeypatch.setattr(ray_engine, "_write", real)
    result = CliRunner().invoke(cli, [*asked, "--json"])
    assert json.loads(result.stdout)["embedded"] == 70
    check(tmp_path / "index")


@pytest.mark.slow
def test_a_node_is_killed_in_the_middle(photos, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'fewshot[ray]'")
    from ray.cluster_utils import Cluster

    monkeypatch.setattr("fewshot.ray_engine.SHARD", 4)
    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
    out = tmp_path / "index"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    victim = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    merged, real = [], ray_engine._merge

    def merge(store, file, counts):
        merged.append(file)
        if len(merged) == 2:
            cluster.remove_node(victim, allow_graceful=False)
        return real(store, file, counts)

    monkeypatch.setattr(ray_engine, "_merge", merge)
    try:
        engine = RayEngine(cluster.address, device="cpu", workers=2)
        counts = build_index([photos], out, encoder="toy", device="cpu", engine=engine)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert len(merged) > 20
    assert (counts.embedded, counts.copies, counts.skipped) == (120, 1, 1)
    check(out)


def test_nobody_answers(photos, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install 'fewshot[ray]'")
    with pytest.raises(DataError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        build_index([photos], tmp_path / "index", encoder="toy", device="cpu", engine=RayEngine("127.0.0.1:1"))
    out = tmp_path / "another"
    asked = ["index", "build", str(photos), "--out", str(out), "--encoder", "toy", "--engine", "ray"]
    result = CliRunner().invoke(cli, [*asked, "--address", "127.0.0.1:1"])
    assert (result.exit_code > 0, out.exists()) == (True, False)
    assert "no Ray cluster answers at 127.0.0.1:1" in result.stderr


def test_nothing_is_begun_without_ray(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "index"
    result = CliRunner().invoke(cli, ["index", "build", str(photos), "--out", str(out), "--engine", "ray"])
    assert (result.exit_code > 0, out.exists()) == (True, False)
    assert "pip install 'fewshot[ray]'" in result.stderr
