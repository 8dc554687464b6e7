"""Every strategy answers on a GPU what it answers on the CPU."""

import pytest
import torch

from fewshot.drawing import draw
from fewshot.episodes import EpisodeSpec
from fewshot.evaluate import evaluate
from fewshot.features import make_features
from fewshot.registry import registry
from fewshot.testing.checking import answer, same, variants
from fewshot.testing.toy import toy_queries, toy_task

pytestmark = pytest.mark.gpu
NAMES = sorted(registry().strategies)


@pytest.mark.filterwarnings("ignore::fewshot_plugins._guard.GuardWarning")
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_cpu(gpu: torch.device, name: str) -> None:
    strategy = registry().strategy(name)()
    for inputs in variants(strategy):
        for batch in ((), (3,)):
            task = toy_task(inputs, batch=batch)
            query, _ = toy_queries(task)
            there = answer(strategy, task.to(gpu), query.to(gpu))
            assert there.device.type == "cuda"
            same(there.cpu(), answer(strategy, task, query), f"{sorted(inputs)}, batch {list(batch)}, on a GPU")


@pytest.mark.parametrize("name", ["prototypical", "ridge", "linear_probe", "laplacian_shot"])
def test_an_evaluation_scores_the_same(gpu: torch.device, name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    labels = [f"c{i}" for i in range(12) for _ in range(40)]
    centres = torch.randn(12, 64, generator=rng).repeat_interleave(40, 0)
    data = make_features("toy", centres + 1.5 * torch.randn(480, 64, generator=rng), labels)
    drawn = draw(EpisodeSpec(way=5, shot=3, query=10, unlabeled=10, episodes=150, seed=1), data.labels)
    there = evaluate(registry().strategy(name)(), data, drawn, device=gpu).metrics["accuracy"]
    here = evaluate(registry().strategy(name)(), data, drawn).metrics["accuracy"]
    assert abs(there.mean - here.mean) < 5e-4  # of 7,500 queries no more than three may fall on the other side
    assert 0.3 < here.mean < 0.99
