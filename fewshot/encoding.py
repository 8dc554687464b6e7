"""What an encoder gives, looked at before it is kept or searched with: a broken one must not fill an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from fewshot.blame import blamed
from fewshot.encoders import Encoder
from fewshot.errors import PluginError


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """Embed texts. Raises as `checked`.  -> [n, D]"""
    return checked(encoder, len(texts), lambda: encoder.encode_texts(texts))


def checked(encoder: Encoder, count: int, embed: Callable[[], Tensor]) -> Tensor:
    """Return what `embed`, which runs the encoder, makes of `count` pictures or texts.  -> [count, D]

    Raises
    ------
    PluginError
        when the encoder fails, or its answer is of another shape or holds NaN or infinity.
    """
    with blamed(encoder):
        x = embed()
    if tuple(x.shape) != (count, encoder.dim):
        wanted = [count, encoder.dim]
        raise PluginError(f"encoder {encoder.name!r} gives embeddings of shape {list(x.shape)}, not {wanted}")
    if broken := count - int(x.isfinite().all(-1).sum()):
        raise PluginError(f"encoder {encoder.name!r} gives NaN or infinity for {broken} of {count} pictures or texts")
    return x
