"""An encoder embeds on a GPU as on the CPU, to the accuracy that its fingerprint promises."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from fewshot import reading
from fewshot.decoders import Decoders
from fewshot.embedding import embed_images
from fewshot.encoders import load_encoder

pytestmark = pytest.mark.gpu
TEXTS = ["a dog", "two cats on a red sofa", "", "word " * 200]
EXACT = ["lite", "lite:fast", "lite:stage6", "toy", "clip:tiny-clip@{clip}", "timm:test_resnet@{timm}"]


@pytest.fixture
def files(clip_file: Path, timm_file: Path) -> dict[str, Path]:
    return {"clip": clip_file, "timm": timm_file}


@pytest.mark.parametrize("name", EXACT)
def test_pictures(gpu: torch.device, files: dict[str, Path], photos: list[Image.Image], name: str) -> None:
    spec = name.format_map(files)
    there, here = load_encoder(spec, str(gpu)), load_encoder(spec, "cpu")
    assert there.device.type == "cuda"
    assert there.fingerprint == here.fingerprint
    x, y = embed_images(there, photos).embeddings, embed_images(here, photos).embeddings
    assert x.device.type == "cpu"
    assert (x - y).abs().max() < 1e-4
    assert (x * y).sum(-1).min() > 0.99999


@pytest.mark.parametrize("name", ["lite:bf16", "clip:bf16:tiny-clip@{clip}"])
def test_pictures_in_bfloat16(gpu: torch.device, files: dict[str, Path], photos: list[Image.Image], name: str) -> None:
    spec = name.format_map(files)
    there, exact = load_encoder(spec, str(gpu)), load_encoder(spec.replace(":bf16", ""), "cpu")
    x, y = embed_images(there, photos).embeddings, embed_images(exact, photos).embeddings
    assert (x * y).sum(-1).min() > 0.999
    assert there.fingerprint != exact.fingerprint


@pytest.mark.parametrize("name", ["lite", "clip:tiny-clip@{clip}"])
def test_texts(gpu: torch.device, files: dict[str, Path], name: str) -> None:
    spec = name.format_map(files)
    x, y = load_encoder(spec, str(gpu)).encode_texts(TEXTS), load_encoder(spec, "cpu").encode_texts(TEXTS)
    assert x.device.type == "cpu"
    assert (x - y).abs().max() < 1e-4


def test_processes_read_for_it(gpu: torch.device, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, paths = load_encoder("lite", str(gpu)), sorted(folder.rglob("*.png"))
    wanted = embed_images(encoder, paths).embeddings
    made: list[Decoders] = []

    class Ready(Decoders):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            made.append(self)
            for worker in [self._ready.get(timeout=60) for _ in self._workers]:
                self._ready.put(worker)

    monkeypatch.setattr(reading, "Decoders", Ready)
    for name, value in {"MANY": 24, "CORES": 1, "CHUNK": 4}.items():
        monkeypatch.setattr(reading, name, value)
    for _ in range(2):
        found = embed_images(encoder, paths, batch=8)
        assert found.kept == [*range(24)]
        assert (found.embeddings - wanted).abs().max() < 1e-5
    assert [len(decoders.pids) for decoders in made] == [reading.cores()] * 2
