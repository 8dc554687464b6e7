"""dn4 against its formula in plain loops, and against a picture that moves."""

import numpy as np
import pytest
import torch

from fewshot import fit, make_task
from fewshot.errors import InvalidTask
from fewshot.registry import registry

SIDE, CHANNELS = 3, 4


def test_scores_are_the_formula() -> None:
    rng = np.random.default_rng(0)
    support, query = rng.standard_normal((5, 36)), rng.standard_normal((2, 36))
    labels = [0, 1, 0, 2, 1]
    strategy = registry().strategy("dn4")(side=SIDE, drift=0.1, temperature=7.0)
    head = fit(strategy, make_task(torch.tensor(support), torch.tensor(labels)))
    places = [(i, j) for i in range(SIDE) for j in range(SIDE)]
    maps = support.reshape(5, CHANNELS, SIDE, SIDE)
    centre = np.mean([m[:, i, j] for m in maps for i, j in places], axis=0)
    wanted = np.zeros((2, 3))
    for q, picture in enumerate(query.reshape(2, CHANNELS, SIDE, SIDE)):
        lengths = [np.linalg.norm(picture[:, i, j] - centre) for i, j in places]
        for k in range(3):
            for (i, j), length in zip(places, lengths, strict=True):
                x = (picture[:, i, j] - centre) / length
                scores = []
                for m, label in zip(maps, labels, strict=True):
                    for a, b in places:
                        y = m[:, a, b] - centre
                        if label == k:
                            scores.append(x @ y / np.linalg.norm(y) - 0.1 * ((i - a) ** 2 + (j - b) ** 2))
                wanted[q, k] += 7 * length / sum(lengths) * max(scores)
    np.testing.assert_allclose(head.logits(torch.tensor(query)).numpy(), wanted, atol=1e-10)


def test_a_moved_pattern_is_known_again_unless_moving_costs_too_much() -> None:
    cross, blob = torch.zeros(2, CHANNELS, 5, 5)
    cross[0, 1, 0:3] = cross[1, 0:3, 1] = blob[2, 0:2, 0:2] = 1.0
    task = make_task(torch.stack([cross, blob]).flatten(1), torch.tensor([0, 1]))
    moved = torch.stack([cross.roll((2, 2), (1, 2)), blob.roll((3, 3), (1, 2))]).flatten(1)
    head = fit(registry().strategy("dn4")(side=5), task)
    assert head.logits(moved).argmax(-1).tolist() == [0, 1]
    gap = [
        fit(registry().strategy("dn4")(side=5, drift=d, temperature=1.0), task).logits(moved).softmax(-1)[0, 0]
        for d in (0.0, 0.05)
    ]
    assert gap[0] > gap[1]


def test_a_side_that_does_not_fit_is_refused() -> None:
    task = make_task(torch.eye(6), torch.tensor([0, 0, 0, 1, 1, 1]))
    with pytest.raises(InvalidTask, match="side 2 wants embeddings of a multiple of 4 numbers, got 6"):
        fit(registry().strategy("dn4")(side=2), task)
