"""Memory that is used again, while nothing that still refers to it may change."""

import gc

import numpy as np
import pytest
import torch

from fewshot import slabs
from fewshot.slabs import slabs_kept, uninitialised

VIEWS = {
    "slice": lambda a: a[1:, 2:],
    "reshaped and turned": lambda a: a.reshape(-1)[3:].view(np.int8).reshape(-1, 1).T,
    "tensor": lambda a: torch.from_numpy(a[1:]).permute(2, 0, 1).numpy(),
    "exchanged": lambda a: torch.utils.dlpack.from_dlpack(a)[:2].numpy(),
}


def place(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("view", VIEWS)
def test_memory_waits_for_every_view_of_it(view: str) -> None:
    with slabs_kept(1000):
        array = uninitialised(4, 5, 3)
        array[:] = 7
        seen, first = VIEWS[view](array), place(array)
        del array
        gc.collect()
        other = uninitialised(4, 5, 3)
        assert place(other) != first
        other[:] = 9
        assert (seen == 7).all()
        del seen
        gc.collect()
        assert place(uninitialised(2, 3)) == first


def test_larger_arrays_get_memory_of_their_own() -> None:
    with slabs_kept(1000):
        uninitialised(10)
        assert uninitialised(100, 3).shape == (100, 3)
        uninitialised(100)[:] = 1


def test_nothing_is_kept_outside_or_afterwards_or_beyond_the_bound() -> None:
    uninitialised(10)
    assert not slabs._waiting
    with slabs_kept(10), slabs_kept(15):
        a, b, c = (uninitialised(10) for _ in range(3))
        assert len({place(x) for x in (a, b, c)}) == 3
        del a, b, c
        assert len(slabs._waiting) == 2
    assert not slabs._waiting
