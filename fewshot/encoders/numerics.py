"""The numbers of an encoder: no autograd, and full float32 in convolutions, so that CPU and GPU agree to about 1e-5."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact() -> Iterator[None]:
    """Run without autograd and without TF32 (cuDNN uses it for convolutions unless told not to).

    What leaves the context as an embedding must be cloned outside of it, or autograd refuses it later.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.inference_mode():
        yield
