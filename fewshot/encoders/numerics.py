"""The numbers of an encoder: no autograd, and full float32 in convolutions, so that CPU and GPU agree to about 1e-5."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def exact() -> Iterator[None]:
    """Run without autograd and without TF32 (cuDNN uses it for convolutions unless told not to).

    What leaves the context as an embedding goes through `fetched`, or autograd refuses it later.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.inference_mode():
        yield


def fetched(x: Tensor) -> Tensor:
    """Copy a result to the CPU, asleep until a GPU has computed it; call it after `exact`.

    CUDA would keep a core busy with waiting, and torch's threads, which a copy by torch wakes, go on to wait busily:
    that is time for decoding.
    """
    if x.is_cuda:
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(x.device))
        done.synchronize()
    return torch.from_numpy(x.cpu().numpy().copy())
