"""The network of `lite` as an OpenVINO graph, where that extra is installed: the same numbers, faster on a CPU."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from fewshot.encoders.lite_image import SIZE, Conv, Lite0, Network

PIECE = 8  # pictures at a time: what they need between two layers stays in the cache


def available() -> bool:
    """Tell whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


def compile_network(network: Lite0) -> Network:
    """Return a function like `network` itself.  [n, 3, 224, 224] uint8 -> features [n, 1280], logits [n, 1000]

    It may be called from several threads; each has buffers of its own. Takes as many cores as torch does.
    """
    import openvino

    threads = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(_graph(network), "CPU", threads)
    local = threading.local()

    def run(pixels: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        parts = [_infer(local.request, piece) for piece in pixels.split(PIECE)]
        features, logits = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(logits)  # [n, 1280], [n, 1000]

    return run


def _infer(request: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    found = request.infer([pixels.permute(0, 2, 3, 1).contiguous().numpy()], share_inputs=True)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _graph(network: Lite0) -> Any:
    """Build the graph from the folded convolutions; its input is [n, 224, 224, 3] uint8, as decoders leave it."""
    import openvino
    from openvino import opset13 as op

    pixels = op.parameter([-1, SIZE, SIZE, 3], openvino.Type.u8)
    x = op.convert(op.transpose(pixels, _constant([0, 3, 1, 2], torch.int64)), "f32")
    x = op.subtract(op.divide(x, _constant(127.5)), _constant(1.0))
    x = op.clamp(_conv(x, network.stem), 0.0, 6.0)
    for block in network.blocks:
        y = x
        for conv in block.convs[:-1]:
            y = op.clamp(_conv(y, conv), 0.0, 6.0)
        y = _conv(y, block.convs[-1])
        x = op.add(y, x) if block.residual else y
    x = op.clamp(_conv(x, network.top), 0.0, 6.0)
    features = op.reduce_mean(x, _constant([2, 3], torch.int64), keep_dims=False)  # [n, 1280]
    weight, bias = network.classifier
    logits = op.add(op.matmul(features, _constant(weight), False, True), _constant(bias))  # [n, 1000]
    return openvino.Model([features, logits], [pixels], "lite0")


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
