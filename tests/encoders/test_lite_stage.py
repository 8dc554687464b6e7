"""lite:stageN against timm's own network, and on characters, which the usual features confuse."""

from pathlib import Path

import pytest
import timm
import torch

from fewshot.bench import draw_from
from fewshot.datasets.omniglot import read_challenge
from fewshot.embed_items import embed_items
from fewshot.encoders import lite_image, load_encoder
from fewshot.episodes import EpisodeSpec
from fewshot.errors import UnknownName
from fewshot.evaluate import evaluate
from fewshot.registry import registry


@pytest.mark.parametrize(("stage", "dim"), [(5, 16_128), (6, 4_800), (7, 8_000)])
def test_maps_are_timms_averaged_over_windows(stage: int, dim: int) -> None:
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    state = torch.load(lite_image.weight_file(), map_location="cpu", weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    pixels = torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    side = 14 if stage == 5 else 7
    with torch.no_grad():
        x = net.eval().bn1(net.conv_stem(pixels / 127.5 - 1))
        for block in net.blocks[:stage]:
            x = block(x)
    assert x.shape[-1] == side
    windows = [x[:, :, i : i + 3, j : j + 3].mean((2, 3)) for i in range(side - 2) for j in range(side - 2)]
    wanted = torch.stack(windows, -1).flatten(1)  # [2, channels * places]
    encoder = load_encoder(f"lite:stage{stage}", "cpu")
    assert encoder.dim == dim
    assert torch.allclose(encoder.encode_prepared(pixels), wanted / wanted.norm(dim=1, keepdim=True), atol=1e-5)


def test_variants_have_their_own_fingerprints() -> None:
    names = ("lite", "lite:stage5", "lite:stage6", "lite:stage7")
    assert len({load_encoder(name, "cpu").fingerprint for name in names}) == 4
    with pytest.raises(UnknownName, match=r"unknown variant of lite 'stage9'.*stage5, stage6, stage7"):
        load_encoder("lite:stage9", "cpu")


@pytest.mark.slow
def test_one_shot_characters_beat_the_modified_hausdorff_distance(shared_data: Path) -> None:
    items = read_challenge(shared_data / "omniglot")
    features, _ = embed_items("omniglot_challenge", items, load_encoder("lite:stage6", "cpu"))
    result = evaluate(registry().strategy("simpleshot")(), features, draw_from(features, EpisodeSpec(fixed=True)))
    assert 1 - result.metrics["accuracy"].mean <= 0.37  # 36.25 %; Modified Hausdorff distance: 38.75 %
