"""Query labels reach the score and nothing else: every strategy gives the same scores when they are all wrong."""

import dataclasses

import pytest
import torch

from fewshot.drawing import draw
from fewshot.episodes import EpisodeSpec
from fewshot.evaluate import evaluate
from fewshot.features import make_features
from fewshot.registry import registry
from fewshot.report import result_to_dict

SCORE = {"metrics", "accuracies", "recall", "mistakes", "reliability"}
CLASSES, EACH, DIM, WAY = 6, 24, 16, 3


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(CLASSES, DIM, generator=generator)
    x = centre.repeat_interleave(EACH, 0) + 0.5 * torch.randn(CLASSES * EACH, DIM, generator=generator)
    return make_features(
        "blobs",
        x,
        [f"c{i}" for i in range(CLASSES) for _ in range(EACH)],
        splits=["train", "test"] * (CLASSES * EACH // 2),
        text=centre.unsqueeze(1) + 0.3 * torch.randn(CLASSES, 2, DIM, generator=generator),
        attributes=torch.rand(CLASSES, 5, generator=generator),
    )


@pytest.mark.filterwarnings("ignore::UserWarning")  # of strategies that fall back on so few items
@pytest.mark.parametrize("name", sorted(registry().strategies))
def test_poisoned_query_labels_change_nothing_but_the_score(features, name):
    strategy = registry().strategy(name)()
    spec = EpisodeSpec(way=WAY, shot=3, query=4, episodes=2, split="test", source="train")
    episodes = draw(spec, features.labels, splits=features.splits)
    poisoned = dataclasses.replace(episodes, query_labels=(episodes.query_labels + 1) % WAY)
    seen: list[list[torch.Tensor]] = [[], []]
    honest = evaluate(strategy, features, episodes, observe=lambda part: seen[0].append(part.logits.clone()))
    wrong = evaluate(strategy, features, poisoned, observe=lambda part: seen[1].append(part.logits.clone()))
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    a, b = result_to_dict(honest), result_to_dict(wrong)
    assert {field for field in a if a[field] != b[field]} <= SCORE | {"cost", "episodes"}
    assert sum(honest.accuracies) + sum(wrong.accuracies) <= len(episodes)  # no query is right both times
