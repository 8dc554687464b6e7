"""The network of `lite` in a runtime of the extra `fast`, onnxruntime or OpenVINO: faster, with the same numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.encoders import lite_graph
from fewshot.encoders.lite_image import Lite0

PIECE = 4  # pictures that a core takes at a time: what they need between two layers stays in the cache
Arrays = list[NDArray[Any]]
Run = Callable[[Arrays], Arrays]  # may be called from several threads


def installed(package: str) -> bool:
    """Tell whether a package is installed, without importing it."""
    return find_spec(package) is not None


def runtime(bfloat16: bool) -> str:
    """Name the runtime to take, or nothing: onnxruntime is the faster in float32, OpenVINO has bfloat16."""
    names = ["openvino"] if bfloat16 else ["onnxruntime", "openvino"]
    return next((name for name in names if installed(name)), "") if installed("onnx") else ""


def compile_encoder(network: Lite0, places: Tensor, share: float) -> Callable[[Tensor], Tensor] | None:
    """Return a function from prepared pictures to embeddings, if there is a runtime.  [n, 3, 224, 224] -> [n, 1280 + T]

    `places` [1000, T] are those of the network's classes in text space, which get this share of the squared norm. The
    function may be called from several threads. It takes as many cores as torch does, each with pictures of its own:
    at one picture together they would wait for each other after every layer, for long where others decode meanwhile.
    Convolutions run in the type of their weights, bfloat16 from some block on or nowhere, the rest in float32.
    """
    low = [block.convs[0].weight.dtype == torch.bfloat16 for block in network.blocks].count(True)
    name, cores = runtime(bool(low)), torch.get_num_threads()
    if not name:
        return None
    split = len(network.blocks) - low
    graphs = (
        [(lite_graph.whole(network), "f32")]
        if not low
        else [(lite_graph.front(network, split), "f32"), (lite_graph.rear(network, split), "bf16")]
    )
    graphs.append((lite_graph.joined(places, share), "f32"))
    runs = [_onnxruntime(g) if name == "onnxruntime" else _openvino(g, precision, cores) for g, precision in graphs]
    pool = ThreadPoolExecutor(cores, thread_name_prefix="network")

    def infer(piece: Tensor) -> NDArray[np.float32]:
        pixels: Arrays = [piece.permute(0, 2, 3, 1).contiguous().numpy()]
        return reduce(lambda values, run: run(values), runs, pixels)[0]

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(np.concatenate(list(pool.map(infer, pixels.split(PIECE)))))

    return run


def _onnxruntime(graph: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda values: session.run(None, dict(zip(names, values, strict=True)))


def _openvino(graph: bytes, precision: str, cores: int) -> Run:
    import openvino

    core, local = openvino.Core(), threading.local()
    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cores, "NUM_STREAMS": cores}
    model = core.compile_model(core.read_model(graph), "CPU", hints)

    def run(values: Arrays) -> Arrays:
        if not hasattr(local, "request"):
            local.request = model.create_infer_request()
        return list(local.request.infer(values, share_inputs=True).values())

    return run
