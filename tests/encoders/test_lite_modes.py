"""The faster ways to run `lite` against the exact one, on real pictures; each difference is measured, not assumed."""

import io
import multiprocessing
import pickle
import sys

import pytest
import torch
from PIL import Image
from skimage import data

from fewshot.embedding import embed_images, stream
from fewshot.encoders import Encoder, lite_image, lite_runtime, load_encoder
from fewshot.encoders.spread import SpreadEncoder
from fewshot.encoders.toy import ToyEncoder
from fewshot.errors import ImageError, UnknownName
from fewshot.images import open_image

PHOTOS = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]


@pytest.fixture(scope="module")
def exact() -> Encoder:
    return load_encoder("lite", "cpu")


def jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92)
    return out.getvalue()


@pytest.mark.parametrize(
    ("runtime", "name", "least"),
    [("onnxruntime", "lite", 1 - 1e-6), ("openvino", "lite", 1 - 1e-6), ("openvino", "lite:bf16", 0.9995)],
)
def test_a_runtime_answers_as_torch_does(
    monkeypatch: pytest.MonkeyPatch, runtime: str, name: str, least: float
) -> None:
    for package in ("onnx", runtime):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'fewshot[fast]'")
    monkeypatch.setattr(lite_runtime, "installed", lambda package: package in ("onnx", runtime))
    fast = load_encoder(name, "cpu")
    assert fast._graph is not None
    monkeypatch.setattr(lite_runtime, "installed", lambda package: False)
    plain = load_encoder(name, "cpu")
    assert plain._graph is None
    assert fast.fingerprint == plain.fingerprint
    pixels = torch.stack([lite_image.prepare(Image.fromarray(photo)) for photo in PHOTOS * 3])
    for n in (1, 7, 12):
        got, want = fast.encode_prepared(pixels[:n]), plain.encode_prepared(pixels[:n])
        assert got.shape == want.shape == (n, 1280 + 384)
        assert torch.nn.functional.cosine_similarity(got, want).min() > least
        for block in (slice(1280), slice(1280, None)):  # each with its share of the norm
            torch.testing.assert_close(got[:, block].norm(dim=1), want[:, block].norm(dim=1))


@pytest.mark.parametrize(
    ("packages", "bfloat16", "names"),
    [
        ({"onnx", "onnxruntime", "openvino"}, False, ["onnxruntime", "openvino"]),
        ({"onnx", "onnxruntime", "openvino"}, True, ["openvino"]),
        ({"onnx", "onnxruntime"}, True, []),
        ({"onnxruntime", "openvino"}, False, []),
        ({"onnx"}, False, []),
    ],
)
def test_which_runtimes_are_taken(
    monkeypatch: pytest.MonkeyPatch, packages: set[str], bfloat16: bool, names: list[str]
) -> None:
    monkeypatch.setattr(lite_runtime, "installed", packages.__contains__)
    assert lite_runtime.runtimes(bfloat16) == names


def test_a_folder_of_models_is_no_package(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx_models").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not lite_runtime.installed("onnx_models")
    assert lite_runtime.installed("numpy")


def test_broken_runtimes_are_passed_over(exact: Encoder, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx.py").write_text("raise ImportError('no such library')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnx", raising=False)
    monkeypatch.setattr(lite_runtime, "installed", {"onnx", "onnxruntime"}.__contains__)
    with pytest.warns(UserWarning, match="onnxruntime cannot be used and lite is slower: no such library"):
        encoder = load_encoder("lite", "cpu")
    picture = [Image.fromarray(data.coffee())]
    torch.testing.assert_close(encoder.encode_images(picture), exact.encode_images(picture))


@pytest.mark.parametrize("runtime", ["onnxruntime", ""])
def test_it_travels_and_forks(monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    if runtime:
        pytest.importorskip("onnx", reason="needs onnx: pip install 'fewshot[fast]'")
        pytest.importorskip(runtime, reason=f"needs {runtime}: pip install 'fewshot[fast]'")
    monkeypatch.setattr(lite_runtime, "installed", lambda package: runtime and package in ("onnx", runtime))
    encoder = load_encoder("lite", "cpu")
    pixels = lite_image.prepare(Image.fromarray(data.coffee()))[None]
    wanted = encoder.encode_prepared(pixels)
    torch.testing.assert_close(pickle.loads(pickle.dumps(encoder)).encode_prepared(pixels), wanted)
    if runtime:
        child = multiprocessing.get_context("fork").Process(target=encoder.encode_prepared, args=(pixels,))
        child.start()
        child.join(60)
        assert child.exitcode == 0


def test_fast_is_near_exact(exact: Encoder) -> None:
    fast = load_encoder("lite:fast", "cpu")
    assert fast.fingerprint != exact.fingerprint
    big = [Image.fromarray(p).resize((p.shape[1] * 4 + 1, p.shape[0] * 4), Image.Resampling.LANCZOS) for p in PHOTOS]
    sources = [jpeg(image) for image in [*big, *map(Image.fromarray, PHOTOS)]]
    cosine = (embed_images(fast, sources).embeddings * embed_images(exact, sources).embeddings).sum(-1)
    assert cosine.min() > 0.9999


@pytest.mark.parametrize("mode", ["fast", "bf16"])
def test_small_pictures_are_prepared_as_by_the_exact_one(exact: Encoder, mode: str) -> None:
    fast, image = load_encoder(f"lite:{mode}", "cpu"), Image.fromarray(data.coffee()).resize((600, 447))
    for source in (jpeg(image), image):
        assert torch.equal(fast.prepare_source(source), exact.prepare_source(source))


def test_damaged_files_are_named_as_by_the_exact_one(exact: Encoder, tmp_path) -> None:
    path, fast = tmp_path / "half.jpg", load_encoder("lite:fast", "cpu")
    path.write_bytes(jpeg(Image.fromarray(data.coffee()).resize((900, 600)))[:20000])
    for source in (path, path.read_bytes(), tmp_path / "nowhere.jpg"):
        with pytest.raises(ImageError) as want:
            exact.prepare_source(source)
        with pytest.raises(ImageError) as got:
            fast.prepare_source(source)
        assert str(got.value) == str(want.value)


def test_bfloat16_is_close(exact: Encoder) -> None:
    half = load_encoder("lite:bf16", "cpu")
    assert half.fingerprint not in (exact.fingerprint, load_encoder("lite:fast", "cpu").fingerprint)
    pictures = [Image.fromarray(photo) for photo in PHOTOS]
    x = half.encode_images(pictures)
    assert x.dtype == torch.float32
    assert (x * exact.encode_images(pictures)).sum(-1).min() > 0.9995


def test_variants_are_named() -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'fast'"):
        load_encoder("lite:fst", "cpu")


def test_gpus_share_a_batch() -> None:
    device = torch.device("cpu")
    spread = SpreadEncoder([ToyEncoder(device), ToyEncoder(device), ToyEncoder(device)])
    pictures = [Image.fromarray(photo) for photo in PHOTOS]
    for n in range(5):
        torch.testing.assert_close(spread.encode_images(pictures[:n]), ToyEncoder(device).encode_images(pictures[:n]))
    torch.testing.assert_close(spread.encode_texts(["red"]), ToyEncoder(device).encode_texts(["red"]))


def test_a_batch_too_large_for_a_gpu_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, sizes = ToyEncoder(torch.device("cpu")), []
    real = encoder.encode_prepared

    def small(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return real(batch)

    monkeypatch.setattr(encoder, "encode_prepared", small)
    (part,) = stream(encoder, PHOTOS * 2, batch=8)
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    torch.testing.assert_close(part.embeddings, real(torch.stack([encoder.prepare(open_image(p)) for p in PHOTOS * 2])))
