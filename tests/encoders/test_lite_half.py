"""Rounding to bfloat16 keeps the means of channels, which the norms foretell."""

import pytest
import torch
from PIL import Image
from skimage import data
from torch.nn import functional as F

from fewshot.encoders import lite_half, lite_image
from fewshot.encoders.lite_image import Conv

PHOTOS = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]


def test_the_mean_of_a_clipped_normal_is_that_of_draws() -> None:
    mean, deviation = torch.tensor([-3.0, 0.0, 2.0, 7.0, 3.0, 1.5]), torch.tensor([1.0, 2.0, 3.0, 2.0, -4.0, 0.0])
    draws = mean + deviation * torch.randn(400_000, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lite_half.clipped_mean(deviation, mean), draws.clamp(0, 6).mean(0), atol=0.02, rtol=0)


@pytest.mark.parametrize(("groups", "kernel"), [(1, 1), (1, 3), (24, 5)])
def test_a_rounded_convolution_keeps_the_mean(groups: int, kernel: int) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(24, 24 // groups, kernel, kernel, generator=generator)
    conv = Conv(weight, torch.randn(24, generator=generator), 1, groups)
    mean = torch.rand(24, generator=generator) * 3
    half = lite_half.halve_conv(conv, mean)
    assert half.weight.dtype == half.bias.dtype == torch.bfloat16
    assert ((half.weight.float() - weight).abs() <= weight.abs() * 2**-7).all()  # one of the two neighbours
    level = mean[:, None, None].expand(24, kernel, kernel)[None]  # what the mean picture looks like

    def shift(weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        exact = F.conv2d(level.double(), weight.double(), conv.bias.double(), groups=groups)
        return (F.conv2d(level.double(), weights.double(), bias.double(), groups=groups) - exact).abs().mean()

    nearest = shift(weight.bfloat16(), conv.bias.bfloat16())
    assert shift(half.weight, half.bias) < nearest / 5


def test_a_weight_of_zero_and_an_exact_one_stay() -> None:
    conv = Conv(torch.tensor([0.0, 1.0, -0.5]).reshape(1, 3, 1, 1), torch.tensor([0.25]), 1, 1)
    half = lite_half.halve_conv(conv, torch.ones(3))
    assert half.weight.flatten().tolist() == [0.0, 1.0, -0.5]
    assert half.bias.item() == 0.25


def test_norms_foretell_the_means_of_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    state = lite_image.state_dict()
    network = lite_image.build(state, torch.device("cpu"))
    measured, real = [], Conv.__call__

    def look(conv: Conv, x: torch.Tensor) -> torch.Tensor:
        measured.append(x.mean((0, 2, 3)))
        return real(conv, x)

    monkeypatch.setattr(Conv, "__call__", look)
    with torch.no_grad():
        network(torch.stack([lite_image.prepare(Image.fromarray(photo)) for photo in PHOTOS]))
    told = list(lite_half._input_means(state))
    assert [len(mean) for mean in told] == [len(mean) for mean in measured]
    pairs = list(zip(told, measured, strict=True))[1:]
    likeness = torch.tensor([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])
    assert likeness.median() > 0.9


def test_the_halved_network_answers_nearly_as_the_exact_one() -> None:
    state = lite_image.state_dict()
    network = lite_image.build(state, torch.device("cpu"))
    half = lite_half.halve(network, state)
    pixels = torch.stack([lite_image.prepare(Image.fromarray(photo)) for photo in PHOTOS])
    with torch.no_grad():
        cosine = F.cosine_similarity(half(pixels)[0], network(pixels)[0])
    assert cosine.min() > 0.9998  # plain rounding leaves 0.998
