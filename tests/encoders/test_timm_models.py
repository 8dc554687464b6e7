"""timm against timm's own calls, with a tiny checkpoint."""

from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional as F

from fewshot.encoders import hub, load_encoder
from fewshot.errors import FormatError, MissingInput, UnknownName, WeightsMissing

skimage_data = pytest.importorskip("skimage.data", reason="needs scikit-image's photographs")


def test_embeddings_are_timms_pooled_features(timm_file: Path) -> None:
    photos = [Image.fromarray(skimage_data.astronaut()), Image.fromarray(skimage_data.coffee())]
    net = timm.create_model("test_resnet", pretrained=False)
    net.load_state_dict(torch.load(timm_file, weights_only=True))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)
    with torch.no_grad():
        maps = net.eval().forward_features(torch.stack([transform(photo) for photo in photos]))
        wanted = F.normalize(net.forward_head(maps, pre_logits=True))
    encoder = load_encoder(f"timm:test_resnet@{timm_file}", "cpu")
    assert (encoder.encode_images(photos) - wanted).abs().max() < 1e-5
    with pytest.raises(MissingInput, match=r"takes no text"):
        encoder.encode_texts(["a dog"])


def test_a_stage_is_timms_own_maps_averaged(timm_file: Path) -> None:
    photos = [Image.fromarray(skimage_data.astronaut()), Image.fromarray(skimage_data.coffee())]
    net = timm.create_model("test_resnet", pretrained=False, features_only=True)
    net.load_state_dict(torch.load(timm_file, weights_only=True), strict=False)  # all but the classifier
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)
    with torch.no_grad():
        maps = net.eval()(torch.stack([transform(photo) for photo in photos]))
    prints = {load_encoder(f"timm:test_resnet@{timm_file}", "cpu").fingerprint}
    for number in (1, 3, 5):
        encoder = load_encoder(f"timm:test_resnet:stage{number}@{timm_file}", "cpu")
        assert (encoder.encode_images(photos) - F.normalize(maps[number - 1].mean((2, 3)))).abs().max() < 1e-5
        prints.add(encoder.fingerprint)
    assert len(prints) == 4
    with pytest.raises(MissingInput, match="cannot be trained further"):
        encoder.body()
    for wrong in ("stage0", "stage6", "3", ""):
        with pytest.raises(UnknownName, match="unknown stage of timm:test_resnet"):
            load_encoder(f"timm:test_resnet:{wrong}@{timm_file}", "cpu")


def test_a_checkpoint_must_fit_in_all_but_the_classifier(timm_file: Path, tmp_path: Path) -> None:
    state = torch.load(timm_file, weights_only=True)
    path = tmp_path / "part.pth"
    torch.save({key: value for key, value in state.items() if not key.startswith("fc.")}, path)
    whole = load_encoder(f"timm:test_resnet@{timm_file}", "cpu").fingerprint
    assert load_encoder(f"timm:test_resnet@{path}", "cpu").fingerprint == whole
    torch.save({key: value for key, value in state.items() if not key.startswith("conv1")}, path)
    with pytest.raises(FormatError, match=r"part.pth cannot be loaded as timm:test_resnet"):
        load_encoder(f"timm:test_resnet@{path}", "cpu")
    path.write_bytes(b"nothing")
    with pytest.raises(FormatError, match=r"part.pth cannot be loaded as timm:test_resnet"):
        load_encoder(f"timm:test_resnet@{path}", "cpu")


def test_weights_from_the_hubs_cache(timm_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "cached", lambda repo, names: timm_file if repo == "timm/test_resnet.r160_in1k" else None)
    by_name = load_encoder("timm:test_resnet", "cpu")
    assert by_name.fingerprint == load_encoder(f"timm:test_resnet@{timm_file}", "cpu").fingerprint


def test_offline_and_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "cached", lambda repo, names: None)
    monkeypatch.setattr(hub, "offline", lambda: True)
    with pytest.raises(WeightsMissing, match=r"huggingface.co/timm/resnet18.a1_in1k .*timm:resnet18@FILE"):
        load_encoder("timm:resnet18", "cpu")
    with pytest.raises(WeightsMissing, match=r"is not a file"):
        load_encoder("timm:resnet18@/nowhere/x.pth", "cpu")
    with pytest.raises(UnknownName, match=r"Did you mean 'resnet18'"):
        load_encoder("timm:resnet1", "cpu")


def test_a_failing_download_is_not_followed_by_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("HTTP 403")

    monkeypatch.setattr(hub, "cached", lambda repo, names: None)
    monkeypatch.setattr(hub, "offline", lambda: False)
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(WeightsMissing, match=r"HTTP 403"):
        load_encoder("timm:resnet18", "cpu")
