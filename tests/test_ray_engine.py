"""Several machines make the same index as one, also when one of them is lost on the way."""

import json
import multiprocessing
import os
import sys
import types
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from fewshot import ray_engine, ray_worker
from fewshot.build import Counts, build_index
from fewshot.cli import cli
from fewshot.encoders import load_encoder
from fewshot.encoders.toy import ToyEncoder
from fewshot.errors import DataError, InvalidOption
from fewshot.images import open_image
from fewshot.ray_engine import SHARDS, RayEngine, _merge, _pages
from fewshot.ray_worker import ATTEMPTS, Worker
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
    files = [(path, info.st_size, info.st_mtime_ns) for path, info in found]
    return {"files": np.array([json.dumps(files)])}


@pytest.fixture
def cluster(request):
    """A cluster of one node with as many GPUs as the test says, none of which is there."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'fewshot[ray]'")
    from ray.cluster_utils import Cluster

    gpus = getattr(request, "param", 0)
    head = {"num_cpus": 1, "num_gpus": gpus, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_shards_of_a_stopped_run_are_merged_first(photos, tmp_path, monkeypatch):
    """Without Ray: everything is in shards already, so that there is nothing left to hand out."""
    out = tmp_path / "index"

    class Cluster:
        def cluster_resources(self):
            return {"CPU": 1}

    monkeypatch.setattr(RayEngine, "connected", lambda self: nullcontext(Cluster()))

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
        (again,) = worker(files_of(photos, 2, 3))["shard"]
        assert _merge(store, tmp_path / "shards" / again, counts) == (0, 0, 0)  # counted already, not a copy
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


def test_a_build_ends_with_what_a_worker_tells_and_stdout_stays_its_own(photos, tmp_path, monkeypatch, here):
    monkeypatch.setattr("fewshot.ray_engine.SHARD", 50)
    asked = ["index", "build", str(photos), "--out", str(tmp_path / "index"), "--encoder", "toy", "--engine", "ray"]
    real = ray_worker._write

    def full(target, encoder, files, batch):
        if any(path.endswith("060.png") for path, *_ in files):
            raise OSError(28, "No space left on device")
        real(target, encoder, files, batch)

    monkeypatch.setattr(ray_worker, "_write", full)
    result = CliRunner().invoke(cli, [*asked, "--json"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No space left on device; what was merged is kept" in result.stderr
    with Store.open(tmp_path / "index") as store:
        assert store.rows == 50
    monkeypatch.setattr(ray_worker, "_write", real)
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
    assert len(merged) == 31  # of four files each, all but the last
    assert (counts.embedded, counts.copies, counts.skipped) == (120, 1, 1)
    check(out)


def test_a_shard_holds_as_many_files_as_it_may(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("fewshot.ray_engine.SHARD", 50)
    monkeypatch.setattr("fewshot.ray_engine.PAGE", 2)
    sizes = []

    def engine(store, encoder, counts, batch, total):
        sizes.extend([len(json.loads(shard["files"])) for shard in page] for page in _pages(store))

    build_index([photos], tmp_path / "index", encoder="toy", device="cpu", engine=engine)
    assert sizes == [[50, 50], [22]]


def test_a_worker_tells_what_is_wrong(photos, tmp_path, monkeypatch):
    shards = tmp_path / "shards"
    shards.mkdir()
    (other,) = Worker("toy", "toy-2", str(shards), None, "cpu")(files_of(photos, 0, 3))["failure"]
    assert "toy is toy-1 here, and toy-2 where the build was started" in other
    (missing,) = Worker("toy", "toy-1", str(tmp_path / "none"), None, "cpu")(files_of(photos, 0, 3))["failure"]
    assert "No such file" in missing
    worker = Worker("toy", "toy-1", str(shards), None, "cpu")
    files = files_of(photos, 0, 3)
    photos.rename(tmp_path / "not mounted")
    assert "every machine must have the pictures" in worker(files)["failure"][0]
    (tmp_path / "not mounted").rename(photos)
    assert list(shards.iterdir()) == []

    with monkeypatch.context() as patch:
        patch.setattr(ray_worker, "_write", lambda *_: os._exit(9))
        for _ in range(ATTEMPTS):
            process = multiprocessing.get_context("fork").Process(target=worker, args=(files_of(photos, 0, 3),))
            process.start()
            process.join()
            assert process.exitcode == 9
    (lethal,) = worker(files_of(photos, 0, 3))["failure"]
    assert f"{ATTEMPTS} workers ended" in lethal
    assert lethal.endswith(f"{photos / '000.png'} to {photos / '002.png'}")
    assert worker(files_of(photos, 0, 3))["failure"] == [""]  # another run may try again
    assert len(list(shards.iterdir())) == 1


def test_weights_beside_the_folder_where_the_build_was_started(photos, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    weights = timm.create_model("test_resnet", pretrained=False).state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    name = "timm:test_resnet@weights.pth"
    with monkeypatch.context() as there:
        there.chdir(tmp_path)
        fingerprint = load_encoder(name, "cpu").fingerprint
    worker = Worker(name, fingerprint, str(tmp_path), None, "cpu", str(tmp_path))
    assert worker(files_of(photos, 0, 3))["failure"] == [""]


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_a_gpu_that_is_not_there(cluster, photos, tmp_path):
    asked = ["index", "build", str(photos), "--out", str(tmp_path / "index"), "--encoder", "toy", "--json"]
    result = CliRunner().invoke(cli, [*asked, "--engine", "ray", "--address", cluster.address])
    assert (result.exit_code, result.stdout) == (2, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: the Ray cluster could not do the work")
    assert "device 'cuda' is not there" in last


@pytest.mark.slow
def test_shards_that_do_not_arrive(cluster, photos, tmp_path, monkeypatch):
    out = tmp_path / "index"
    asked = ["index", "build", str(photos), "--out", str(out), "--encoder", "toy", "--engine", "ray"]
    result = CliRunner().invoke(cli, [*asked, "--address", cluster.address, "--device", "cuda"])
    assert (result.exit_code, out.exists()) == (2, False)
    assert "the Ray cluster has no GPU" in result.stderr
    real = ray_engine._merge
    monkeypatch.setattr(ray_engine, "_merge", lambda store, file, counts: file.unlink() or real(store, file, counts))
    with pytest.raises(DataError, match="must be the same for all machines"):
        build_index([photos], out, encoder="toy", device="cpu", engine=RayEngine(cluster.address))
    monkeypatch.undo()
    result = CliRunner().invoke(cli, [*asked, "--address", cluster.address, "--json"])
    assert json.loads(result.stdout)["embedded"] == 120
    check(out)


@pytest.mark.slow
def test_without_an_address_a_cluster_of_its_own_is_started(cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    with RayEngine().connected() as ray:
        assert ray.get_runtime_context().gcs_address != cluster.address


@pytest.mark.parametrize("device", ["cuda:1", "gpu"])
def test_another_device(device):
    with pytest.raises(InvalidOption, match="use auto, cpu or cuda"):
        RayEngine(device=device)


def test_nobody_answers(photos, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install 'fewshot[ray]'")
    with pytest.raises(DataError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        build_index([photos], tmp_path / "index", encoder="toy", device="cpu", engine=RayEngine("127.0.0.1:1"))
    out = tmp_path / "another"
    asked = ["index", "build", str(photos), "--out", str(out), "--encoder", "toy", "--engine", "ray"]
    result = CliRunner().invoke(cli, [*asked, "--address", "127.0.0.1:1"])
    assert (result.exit_code > 0, out.exists()) == (True, False)
    assert "no Ray cluster answers at 127.0.0.1:1" in result.stderr
    for address, told in (("nonsense", "no Ray cluster answers at nonsense"), ("", "--address is empty")):
        result = CliRunner().invoke(cli, [*asked, "--address", address])
        assert (result.exit_code > 0, out.exists()) == (True, False)
        assert told in result.stderr


def test_nothing_is_begun_without_ray(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "index"
    result = CliRunner().invoke(cli, ["index", "build", str(photos), "--out", str(out), "--engine", "ray"])
    assert (result.exit_code > 0, out.exists()) == (True, False)
    assert "pip install 'fewshot[ray]'" in result.stderr
