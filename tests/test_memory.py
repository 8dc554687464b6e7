"""evaluate() keeps a few numbers an episode and no embeddings, whatever the number of episodes."""

import tracemalloc

import numpy as np
import torch

from fewshot.drawing import draw
from fewshot.episodes import ARRAYS, EpisodeSpec
from fewshot.evaluate import evaluate
from fewshot.features import make_features
from fewshot.registry import registry


class Watched(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the largest tensor that any operation makes, in bytes; tracemalloc does not see torch's memory."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return out


def measured(features, number):
    """Bytes that numpy and Python hold at the peak, and of the largest tensor, beside the drawn rows."""
    episodes = draw(EpisodeSpec(shot=1, query=5, episodes=number), features.labels)
    strategy = registry().strategy("prototypical")()
    tracemalloc.start()
    try:
        with Watched() as watched:
            evaluate(strategy, features, episodes)
        return tracemalloc.get_traced_memory()[1], watched.largest, sum(getattr(episodes, n).nbytes for n in ARRAYS)
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_episodes():
    x = torch.randn(400, 128, generator=torch.Generator().manual_seed(0))
    features = make_features("noise", x, [f"c{i:02}" for i in np.arange(400) % 20])
    evaluate(registry().strategy("prototypical")(), features, draw(EpisodeSpec(episodes=64), features.labels))
    small, large = measured(features, 640), measured(features, 2560)
    assert large[1] == small[1]
    assert large[1] >= 64 * 30 * 128 * 4  # a block of 64 episodes of 30 items was gathered
    assert large[0] - small[0] < 2 * (large[2] - small[2])  # metrics and the drawn rows' checksum


def test_drawing_takes_little_beside_what_it_draws():
    labels = np.arange(1200) % 20

    def peak(number):
        tracemalloc.start()
        try:
            episodes = draw(EpisodeSpec(episodes=number), labels)
            return tracemalloc.get_traced_memory()[1], sum(getattr(episodes, n).nbytes for n in ARRAYS)
        finally:
            tracemalloc.stop()

    small, large = peak(10_000), peak(30_000)
    assert large[0] - small[0] < 3 * (large[1] - small[1])
