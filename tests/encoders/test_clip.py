"""clip against open_clip's own calls, with a tiny checkpoint; weights are never random."""

from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image

from fewshot.encoders import clip, hub, load_encoder
from fewshot.errors import FormatError, InvalidOption, MissingInput, UnknownName, WeightsMissing

skimage_data = pytest.importorskip("skimage.data", reason="needs scikit-image's photographs")

TEXTS = ["a dog", "two cats on a red sofa", "", "word " * 200]
TAG = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear", "resize_mode": "squash"}


def photos() -> list[Image.Image]:
    return [Image.fromarray(photo) for photo in (skimage_data.astronaut(), skimage_data.cat(), skimage_data.coffee())]


@pytest.fixture
def tag(clip_file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A pretrained tag of `tiny-clip` whose file is here, with QuickGELU and odd preprocessing."""
    config = {"file": str(clip_file), "quick_gelu": True, **TAG}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", {"odd": config, "gone": {"url": "", **TAG}})
    return "odd"


def test_images_and_texts_are_open_clips_own(clip_file: Path) -> None:
    model, preprocess = open_clip.create_model_from_pretrained("tiny-clip", str(clip_file))
    model.eval()
    encoder = load_encoder(f"clip:tiny-clip@{clip_file}", "cpu")
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(p) for p in photos()]), normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer("tiny-clip")(TEXTS), normalize=True)
    assert (encoder.encode_images(photos()) - images).abs().max() < 1e-5
    assert (encoder.encode_texts(TEXTS) - texts).abs().max() < 1e-5


def test_a_tag_brings_preprocessing_and_activation(tag: str, clip_file: Path) -> None:
    model, preprocess = open_clip.create_model_from_pretrained("tiny-clip", tag, force_quick_gelu=True)
    model.eval()
    with torch.no_grad():
        wanted = model.encode_image(torch.stack([preprocess(p) for p in photos()]), normalize=True)
    by_tag = load_encoder(f"clip:tiny-clip/{tag}", "cpu")
    by_file = load_encoder(f"clip:tiny-clip/{tag}@{clip_file}", "cpu")
    assert (by_tag.encode_images(photos()) - wanted).abs().max() < 1e-5
    assert (by_file.encode_images(photos()) - wanted).abs().max() < 1e-5
    plain = load_encoder(f"clip:tiny-clip@{clip_file}", "cpu")
    assert by_tag.fingerprint == by_file.fingerprint != plain.fingerprint
    assert (plain.encode_images(photos()) - wanted).abs().max() > 1e-3


def test_bfloat16_is_close_for_pictures_and_exact_for_texts(clip_file: Path) -> None:
    exact, half = (load_encoder(f"clip:{mode}tiny-clip@{clip_file}", "cpu") for mode in ("", "bf16:"))
    x, y = exact.encode_images(photos()), half.encode_images(photos())
    assert y.dtype == torch.float32
    assert 0 < (x - y).abs().max() < 0.02
    assert (x * y).sum(-1).min() > 0.9999
    assert torch.equal(exact.encode_texts(TEXTS), half.encode_texts(TEXTS))
    assert exact.fingerprint != half.fingerprint
    with pytest.raises(MissingInput, match=r"too coarse to be trained further; use clip:tiny-clip@"):
        half.body()


def test_the_fingerprint_follows_the_weights(clip_file: Path, tmp_path: Path) -> None:
    state = torch.load(clip_file, weights_only=True)
    torch.save(state, tmp_path / "copy.pt")
    state["visual.proj"][0, 0] += 1e-3
    torch.save(state, tmp_path / "other.pt")
    prints = [load_encoder(f"clip:tiny-clip@{p}", "cpu").fingerprint for p in (clip_file, tmp_path / "copy.pt")]
    assert prints[0] == prints[1] != load_encoder(f"clip:tiny-clip@{tmp_path / 'other.pt'}", "cpu").fingerprint


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + b"\0" * 100])
def test_a_damaged_checkpoint(content: bytes, clip_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"bad.pt cannot be loaded as tiny-clip"):
        load_encoder(f"clip:tiny-clip@{path}", "cpu")


def test_a_checkpoint_of_another_model(clip_file: Path, timm_file: Path) -> None:
    with pytest.raises(FormatError, match=r"test_resnet.pth cannot be loaded as tiny-clip"):
        load_encoder(f"clip:tiny-clip@{timm_file}", "cpu")


def test_names_that_do_not_exist(clip_file: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown clip architecture 'vit-b32'. Did you mean 'ViT-B-32'"):
        load_encoder("clip:vit-b32/openai", "cpu")
    with pytest.raises(UnknownName, match=r"'opena'. Did you mean 'openai'"):
        load_encoder("clip:ViT-B-32/opena", "cpu")
    with pytest.raises(InvalidOption, match=r"names no weights"):
        load_encoder("clip:ViT-B-32", "cpu")
    with pytest.raises(WeightsMissing, match=r"'/nowhere/x.pt' .* is not a file"):
        load_encoder("clip:tiny-clip@/nowhere/x.pt", "cpu")


def test_offline_says_what_to_download_and_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "cached", lambda repo, names: None)
    monkeypatch.setattr(hub, "offline", lambda: True)
    with pytest.raises(WeightsMissing) as caught:
        load_encoder("clip:ViT-B-32/openai", "cpu")
    for part in (
        "huggingface.co/timm/vit_base_patch32_clip_224.openai",
        "clip:ViT-B-32/openai@FILE",
        hub.cache_place(),
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failing_download_is_not_followed_by_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: object) -> str:
        raise RuntimeError("HTTP 403\nand more")

    monkeypatch.setattr(hub, "cached", lambda repo, names: None)
    monkeypatch.setattr(hub, "offline", lambda: False)
    monkeypatch.setattr(open_clip, "download_pretrained", refuse)
    with pytest.raises(WeightsMissing, match=r"not on this machine and HTTP 403;"):
        load_encoder("clip:ViT-B-32/openai", "cpu")


def test_templates_are_the_seven_of_the_paper() -> None:
    """open_clip keeps the same seven as functions."""
    theirs = {template("cat") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES}
    assert {template.format("cat") for template in clip.TEMPLATES} == theirs
