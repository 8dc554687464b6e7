"""Several machines make the same index as one, also when one of them is lost on the way."""

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot import ray_engine
from fewshot.build import build_index
from fewshot.encoders.toy import ToyEncoder
from fewshot.errors import DataError
from fewshot.images import open_image
from fewshot.ray_engine import SHARDS, RayEngine, Worker
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
    assert list((out / SHARDS).iterdir()) == []


def test_shards_of_a_stopped_run_are_merged_first(photos, tmp_path, monkeypatch):
    """Without Ray: everything is in shards already, so that there is nothing left to hand out."""
    out = tmp_path / "index"

    class Cluster:
        def cluster_resources(self):
            return {"CPU": 1}

    monkeypatch.setattr("fewshot.ray_engine._connect", lambda address: Cluster())
    paths = sorted(str(path) for path in photos.iterdir())

    def engine(store, encoder, counts, batch, total):
        (store.path / SHARDS).mkdir()
        worker = Worker("toy", "toy-1", str(store.path / SHARDS), 16, "cpu")
        names = {worker({"path": np.array(part)})["shard"][0] for part in (paths[:70], paths[70:], paths[:70])}
        assert len(names) == 2
        (store.path / SHARDS / "torn.npz").write_bytes(b"half a shard")
        RayEngine(device="cpu")(store, encoder, counts, batch, total)

    counts = build_index([photos], out, encoder="toy", device="cpu", engine=engine)
    assert (counts.embedded, counts.copies, counts.skipped) == (120, 1, 1)
    check(out)


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


@pytest.mark.slow
def test_nobody_answers(photos, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install 'fewshot[ray]'")
    with pytest.raises(DataError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        build_index([photos], tmp_path / "index", encoder="toy", device="cpu", engine=RayEngine("127.0.0.1:1"))
