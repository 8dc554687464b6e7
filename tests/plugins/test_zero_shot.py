"""zero_shot against a loop over phrases."""

import math

import pytest
import torch

from fewshot import make_task
from fewshot.arrays import unit
from fewshot.errors import MissingInput
from fewshot.strategy import fit
from fewshot_plugins.zero_shot import ZeroShot


def phrases(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_is_the_cosine_to_the_renormalised_weighted_mean():
    text, query = unit(phrases(3, 4, 7)), unit(phrases(5, 7, seed=1))
    weight = torch.tensor([[1.0, 1, 1, 1], [2, 1, 0, 0], [1, 0, 0, 3]], dtype=torch.float64)
    got = fit(ZeroShot(scale=10.0), make_task(text=text, text_weight=weight)).logits(query)
    for q in range(5):
        for k in range(3):
            mean = [sum(weight[k, p].item() * text[k, p, d].item() for p in range(4)) for d in range(7)]
            length = math.sqrt(sum(v * v for v in mean))
            cosine = sum(query[q, d].item() * mean[d] / length for d in range(7))
            assert got[q, k].item() == pytest.approx(10 * cosine)


def test_phrases_that_are_not_normalised_count_the_same():
    # some tools embed without normalising, so that a long vector outvotes the rest of its ensemble
    text = unit(phrases(3, 4, 7))
    stretched = text * torch.tensor([1.0, 50.0, 3.0, 0.1], dtype=torch.float64)[None, :, None]
    plain, long = (fit(ZeroShot(), make_task(text=t)).weight for t in (text, stretched))
    torch.testing.assert_close(plain, long)


def test_a_class_without_phrases_is_refused():
    weight = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)
    with pytest.raises(MissingInput, match="class number 1 has no phrase"):
        fit(ZeroShot(), make_task(text=phrases(3, 4, 7), text_weight=weight))
