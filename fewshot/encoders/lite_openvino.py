"""The network of `lite` as OpenVINO graphs, where that extra is installed: the same numbers, faster on a CPU."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.arrays import TINY
from fewshot.encoders.lite_image import FEATURES, SIZE, Block, Conv, Lite0

PIECE = 4  # pictures that a core takes at a time: what they need between two layers stays in the cache


def available() -> bool:
    """Tell whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


def compile_encoder(network: Lite0, places: Tensor, share: float) -> Callable[[Tensor], Tensor]:
    """Return a function from prepared pictures to embeddings.  [n, 3, 224, 224] uint8 -> [n, 1280 + T]

    `places` [1000, T] are those of the network's classes in text space, which get this share of the squared norm. The
    function may be called from several threads. It takes as many cores as torch does, each with pictures of its own:
    at one picture together they would wait for each other after every layer, for long where others decode meanwhile.
    Convolutions run in the type of their weights, bfloat16 from some block on or nowhere, the rest in float32.
    """
    low = [block.convs[0].weight.dtype == torch.bfloat16 for block in network.blocks].count(True)
    split = len(network.blocks) - low
    graphs = (
        [(_whole(network), "f32")] if not low else [(_front(network, split), "f32"), (_rear(network, split), "bf16")]
    )
    graphs.append((_joined(places, share), "f32"))
    cores = torch.get_num_threads()
    compiled = [_compile(graph, precision, cores) for graph, precision in graphs]
    local, pool = threading.local(), ThreadPoolExecutor(cores, thread_name_prefix="network")

    def infer(piece: Tensor) -> NDArray[np.float32]:
        if not hasattr(local, "requests"):
            local.requests = [model.create_infer_request() for model in compiled]
        return _infer(local.requests, piece)

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(np.concatenate(list(pool.map(infer, pixels.split(PIECE)))))

    return run


def _compile(graph: Any, precision: str, cores: int) -> Any:
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cores, "NUM_STREAMS": cores}
    return openvino.Core().compile_model(graph, "CPU", hints)


def _infer(requests: list[Any], pixels: Tensor) -> NDArray[np.float32]:
    values = [pixels.permute(0, 2, 3, 1).contiguous().numpy()]
    for request in requests[:-1]:
        values = list(request.infer(values, share_inputs=True, share_outputs=True).values())
    embeddings: NDArray[np.float32] = requests[-1].infer(values, share_inputs=True)[0]
    return embeddings


def _whole(network: Lite0) -> Any:
    """Build the graph from the folded convolutions; its input is [n, 224, 224, 3] uint8, as decoders leave it."""
    import openvino

    pixels, x = _stem(network)
    return openvino.Model(_top(network, _blocks(x, network.blocks)), [pixels], "lite0")


def _front(network: Lite0, split: int) -> Any:
    """Build the graph of the first blocks: uint8 pictures to maps."""
    import openvino

    pixels, x = _stem(network)
    return openvino.Model([_blocks(x, network.blocks[:split])], [pixels], "lite0-front")


def _rear(network: Lite0, split: int) -> Any:
    """Build the graph of the rest: maps to features and logits."""
    import openvino
    from openvino import opset13 as op

    maps = op.parameter([-1, network.blocks[split].convs[0].weight.shape[1], -1, -1], openvino.Type.f32)
    return openvino.Model(_top(network, _blocks(maps, network.blocks[split:])), [maps], "lite0-rear")


def _stem(network: Lite0) -> tuple[Any, Any]:
    import openvino
    from openvino import opset13 as op

    pixels = op.parameter([-1, SIZE, SIZE, 3], openvino.Type.u8)
    x = op.convert(op.transpose(pixels, _constant([0, 3, 1, 2], torch.int64)), "f32")
    x = op.subtract(op.divide(x, _constant(127.5)), _constant(1.0))
    return pixels, op.clamp(_conv(x, network.stem), 0.0, 6.0)


def _blocks(x: Any, blocks: Sequence[Block]) -> Any:
    from openvino import opset13 as op

    for block in blocks:
        y = x
        for conv in block.convs[:-1]:
            y = op.clamp(_conv(y, conv), 0.0, 6.0)
        y = _conv(y, block.convs[-1])
        x = op.add(y, x) if block.residual else y
    return x


def _top(network: Lite0, x: Any) -> list[Any]:
    from openvino import opset13 as op

    x = op.clamp(_conv(x, network.top), 0.0, 6.0)
    features = op.reduce_mean(x, _constant([2, 3], torch.int64), keep_dims=False)  # [n, 1280]
    weight, bias = network.classifier
    logits = op.add(op.matmul(features, _constant(weight), False, True), _constant(bias))  # [n, 1000]
    return [features, logits]


def _joined(places: Tensor, share: float) -> Any:
    """Build the graph from features and logits to embeddings, as `LiteEncoder` has them."""
    import openvino
    from openvino import opset13 as op

    features, logits = (op.parameter([-1, n], openvino.Type.f32) for n in (FEATURES, len(places)))
    placed = op.matmul(op.softmax(logits, 1), _constant(places), False, False)  # [n, T]
    scaled = [
        op.multiply(op.divide(x, op.maximum(op.reduce_l2(x, 1, keep_dims=True), _constant(TINY))), _constant(length))
        for x, length in ((features, math.sqrt(1 - share)), (placed, math.sqrt(share)))
    ]
    return openvino.Model([op.concat(scaled, 1)], [features, logits], "lite0-joined")


def _conv(x: Any, conv: Conv) -> Any:
    """A convolution with TensorFlow's padding: uneven, the greater part behind, when the stride is 2."""
    from openvino import opset13 as op

    spare = conv.weight.shape[-1] - conv.stride
    before, after = [spare // 2] * 2, [spare - spare // 2] * 2
    strides, dilations = [conv.stride] * 2, [1, 1]
    if conv.groups == 1:
        y = op.convolution(x, _constant(conv.weight), strides, before, after, dilations)
    else:
        grouped = conv.weight[:, None]  # [groups, 1, 1, k, k]
        y = op.group_convolution(x, _constant(grouped), strides, before, after, dilations)
    return op.add(y, _constant(conv.bias[None, :, None, None]))


def _constant(value: Any, dtype: torch.dtype = torch.float32) -> Any:
    from openvino import opset13 as op

    return op.constant(torch.as_tensor(value, dtype=dtype).contiguous().numpy())
