"""The network of `lite` as OpenVINO graphs, where that extra is installed: the same numbers, faster on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from fewshot.encoders.lite_image import SIZE, Block, Conv, Lite0, Network

PIECE = 8  # pictures at a time: what they need between two layers stays in the cache


def available() -> bool:
    """Tell whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


def compile_network(network: Lite0) -> Network:
    """Return a function like `network` itself.  [n, 3, 224, 224] uint8 -> features [n, 1280], logits [n, 1000]

    It may be called from several threads; each has buffers of its own. Takes as many cores as torch does. Convolutions
    run in the type of their weights, bfloat16 from some block on or nowhere.
    """
    low = [block.convs[0].weight.dtype == torch.bfloat16 for block in network.blocks].count(True)
    split = len(network.blocks) - low
    graphs = (
        [(_whole(network), "f32")] if not low else [(_front(network, split), "f32"), (_rear(network, split), "bf16")]
    )
    compiled = [_compile(graph, precision) for graph, precision in graphs]
    local = threading.local()

    def run(pixels: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(local, "requests"):
            local.requests = [model.create_infer_request() for model in compiled]
        parts = [_infer(local.requests, piece) for piece in pixels.split(PIECE)]
        features, logits = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(logits)  # [n, 1280], [n, 1000]

    return run


def _compile(graph: Any, precision: str) -> Any:
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    return openvino.Core().compile_model(graph, "CPU", hints)


def _infer(requests: list[Any], pixels: Tensor) -> tuple[Tensor, Tensor]:
    x = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    for request in requests[:-1]:
        x = request.infer([x], share_inputs=True, share_outputs=True)[0]
    found = requests[-1].infer([x], share_inputs=True)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


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
