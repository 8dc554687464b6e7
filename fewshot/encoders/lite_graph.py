"""The network of `lite` as ONNX graphs, which the runtimes of the extra `fast` read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewshot.arrays import TINY
from fewshot.encoders.lite_image import FEATURES, SIZE, Block, Conv, Lite0

OPSET, IR = 17, 8  # of 2022, so that older runtimes read them too


def whole(network: Lite0) -> bytes:
    """Prepared pictures [n, 224, 224, 3] uint8, as decoders leave them, to features [n, 1280] and logits [n, 1000]."""
    graph = _Graph()
    x = graph.blocks(graph.stem(network.stem), network.blocks)
    return graph.model(graph.top(network, x))


def front(network: Lite0, split: int) -> bytes:
    """Prepared pictures [n, 224, 224, 3] uint8 to the maps that the first blocks make of them."""
    graph = _Graph()
    x = graph.blocks(graph.stem(network.stem), network.blocks[:split])
    return graph.model([(x, [None] * 4)])


def rear(network: Lite0, split: int) -> bytes:
    """These maps [n, c, h, w] to features [n, 1280] and logits [n, 1000]."""
    graph = _Graph()
    maps = graph.input(["n", network.blocks[split].convs[0].weight.shape[1], "h", "w"])
    return graph.model(graph.top(network, graph.blocks(maps, network.blocks[split:])))


def joined(places: Tensor, share: float) -> bytes:
    """Features [n, 1280] and logits [n, 1000] to embeddings [n, 1280 + T], as `LiteEncoder` has them."""
    graph = _Graph()
    features, logits = (graph.input(["n", wide]) for wide in (FEATURES, len(places)))
    placed = graph.node("MatMul", graph.node("Softmax", logits, axis=1), graph.constant(places))
    parts = []
    for x, length in ((features, math.sqrt(1 - share)), (placed, math.sqrt(share))):
        norm = graph.node("Max", graph.node("ReduceL2", x, axes=[1], keepdims=1), graph.constant(TINY))
        parts.append(graph.node("Mul", graph.node("Div", x, norm), graph.constant(length)))
    return graph.model([(graph.node("Concat", *parts, axis=1), ["n", FEATURES + places.shape[1]])])


class _Graph:
    """A graph in the making; what flows through it has names."""

    def __init__(self) -> None:
        import onnx

        self._onnx = onnx
        self._inputs: list[Any] = []
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def input(self, shape: list[Any], dtype: str = "FLOAT") -> str:
        name = f"input{len(self._inputs)}"
        kind = getattr(self._onnx.TensorProto, dtype)
        self._inputs.append(self._onnx.helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, value: Tensor | float) -> str:
        name = f"constant{len(self._constants)}"
        array = torch.as_tensor(value, dtype=torch.float32).contiguous().numpy()
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def model(self, outputs: list[tuple[str, list[Any]]]) -> bytes:
        make, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        told = [make.make_tensor_value_info(name, kind, shape) for name, shape in outputs]
        graph = make.make_graph(self._nodes, "lite0", self._inputs, told, self._constants)
        opset = [make.make_opsetid("", OPSET)]
        data: bytes = make.make_model(graph, opset_imports=opset, ir_version=IR).SerializeToString()
        return data

    def stem(self, conv: Conv) -> str:
        pixels = self.node("Cast", self.input(["n", SIZE, SIZE, 3], "UINT8"), to=self._onnx.TensorProto.FLOAT)
        x = self.node("Div", self.node("Transpose", pixels, perm=[0, 3, 1, 2]), self.constant(127.5))
        return self.clipped(self.conv(self.node("Sub", x, self.constant(1.0)), conv))

    def blocks(self, x: str, blocks: Sequence[Block]) -> str:
        for block in blocks:
            y = x
            for conv in block.convs[:-1]:
                y = self.clipped(self.conv(y, conv))
            y = self.conv(y, block.convs[-1])
            x = self.node("Add", y, x) if block.residual else y
        return x

    def top(self, network: Lite0, x: str) -> list[tuple[str, list[Any]]]:
        maps = self.clipped(self.conv(x, network.top))
        features = self.node("Flatten", self.node("GlobalAveragePool", maps))
        weight, bias = network.classifier
        logits = self.node("Gemm", features, self.constant(weight), self.constant(bias), transB=1)
        return [(features, ["n", FEATURES]), (logits, ["n", len(bias)])]

    def clipped(self, x: str) -> str:
        return self.node("Clip", x, self.constant(0.0), self.constant(6.0))

    def conv(self, x: str, conv: Conv) -> str:
        """A convolution with TensorFlow's padding: uneven, the greater part behind, when the stride is 2."""
        spare = conv.weight.shape[-1] - conv.stride
        pads = [spare // 2] * 2 + [spare - spare // 2] * 2
        weights = self.constant(conv.weight), self.constant(conv.bias)
        return self.node("Conv", x, *weights, pads=pads, strides=[conv.stride] * 2, group=conv.groups)
