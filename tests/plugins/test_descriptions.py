"""descriptions against loops over phrases: mean of cosines (DCLIP), cosine to the mean (CuPL)."""

import pytest
import torch

from fewshot import make_task
from fewshot.arrays import unit
from fewshot.strategy import fit
from fewshot_plugins.descriptions import Descriptions
from fewshot_plugins.zero_shot import ZeroShot


def problem():
    rng = torch.Generator().manual_seed(0)
    text = unit(torch.randn(3, 4, 7, generator=rng, dtype=torch.float64))
    weight = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.float64)
    query = unit(torch.randn(5, 7, generator=rng, dtype=torch.float64))
    return make_task(text=text, text_weight=weight), query


def dot(a, b):
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def test_dclip_is_the_mean_of_the_cosines():
    task, query = problem()
    got = fit(Descriptions(scale=1.0), task).logits(query)
    for q in range(5):
        for k, count in enumerate((4, 2, 3)):
            cosines = [dot(query[q], task.text[k, p]) for p in range(count)]
            assert got[q, k].item() == pytest.approx(sum(cosines) / count)


def test_cupl_is_the_cosine_to_the_mean_embedding_as_in_zero_shot():
    task, query = problem()
    got = fit(Descriptions(mode="cupl", scale=1.0), task).logits(query)
    for q in range(5):
        for k, count in enumerate((4, 2, 3)):
            mean = task.text[k, :count].sum(0)
            assert got[q, k].item() == pytest.approx(dot(query[q], mean) / dot(mean, mean) ** 0.5)
    torch.testing.assert_close(got, fit(ZeroShot(scale=1.0), task).logits(query))


def test_a_class_whose_descriptions_agree_scores_higher_in_dclip_only():
    one = torch.tensor([1.0, 0, 0])
    near = unit(torch.tensor([[1.0, 1, 0], [1, -1, 0]]))
    task = make_task(text=torch.stack([one.expand(2, 3), near]))
    dclip, cupl = (fit(Descriptions(mode=mode, scale=1.0), task).logits(one[None])[0] for mode in ("dclip", "cupl"))
    torch.testing.assert_close(dclip, torch.tensor([1.0, 0.5**0.5]))
    torch.testing.assert_close(cupl, torch.ones(2))
