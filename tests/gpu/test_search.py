"""FAISS on a GPU finds what a scan on the CPU finds, with the same scores."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import fewshot.gpu_rows
from fewshot.build import build_index
from fewshot.index import Index
from fewshot.index_plan import Wanted, plan
from fewshot.kept_index import open_index
from fewshot.scan import load_faiss, scan
from fewshot.search import query
from fewshot.store import Store

pytestmark = pytest.mark.gpu


@pytest.fixture
def rows(gpu: torch.device) -> np.ndarray:
    if not getattr(load_faiss(), "get_num_gpus", lambda: 0)():
        pytest.skip("needs a FAISS built for GPUs")
    rng = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(50, 96, generator=rng))
    near = centres[torch.randint(50, (30_000,), generator=rng)]
    return normalize(near + 0.08 * torch.randn(30_000, 96, generator=rng)).numpy()


@pytest.fixture
def index(rows: np.ndarray) -> Index:
    wanted = Wanted("exact")
    return Index.build(rows, np.ones(len(rows), bool), plan(wanted, len(rows), rows.shape[1]), wanted)


@pytest.mark.parametrize("k", [1, 10, 300])
def test_it_is_the_exact_answer(index: Index, rows: np.ndarray, k: int) -> None:
    there, asked = index.on_gpus(), rows[:64] + np.float32(0.01)
    assert there.device == "gpu"
    for allowed in (None, np.arange(len(rows)) % 3 == 0):
        scores, found = there.search(torch.from_numpy(asked), k, allowed)
        wanted, right = scan(asked, rows, k, allowed)
        np.testing.assert_allclose(scores, wanted, atol=1e-6)
        assert np.mean(found == right) > 0.999  # equal scores may change places


def test_ranges_of_rows_are_joined(index: Index, rows: np.ndarray) -> None:
    halves = [(start, fewshot.gpu_rows._filled(rows, start, start + 15_000, 0)) for start in (0, 15_000)]
    there = Index(index.rows, index.alive, None, index.facts, fewshot.gpu_rows.GpuRows(halves, sharded=True))
    scores, _ = there.search(torch.from_numpy(rows[:64]), 10)
    np.testing.assert_allclose(scores, scan(rows[:64], rows, 10, None)[0], atol=1e-6)


def test_an_index_is_built_and_asked(gpu: torch.device, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    assert build_index([folder], out, encoder="lite", device=str(gpu)).embedded == 24
    asked = sorted((folder / "cup").iterdir())[0]
    (there,), (here,) = (query(out, [asked], top=5, device=place) for place in (str(gpu), "cpu"))
    assert [hit.path for hit in there] == [hit.path for hit in here]
    assert there[0].path == str(asked)
    with Store.open(out) as store:
        assert open_index(store, str(gpu)).device == ("gpu" if load_faiss().get_num_gpus() else "cpu")
