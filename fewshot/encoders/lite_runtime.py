"""The network of `lite` in a runtime of the extra `fast`, onnxruntime or OpenVINO: faster, with the same numbers."""

from __future__ import annotations

import os
import threading
import warnings
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

PIECE = {"onnxruntime": 2, "openvino": 4}  # pictures a core takes at a time: what lies between layers stays cached
Arrays = list[NDArray[Any]]
Run = Callable[[Arrays], Arrays]  # may be called from several threads


def installed(package: str) -> bool:
    """Tell whether a package is installed, without importing it; a folder of its name without code is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def runtimes(bfloat16: bool) -> list[str]:
    """Name the runtimes there are, the best first: onnxruntime is the faster in float32, OpenVINO has bfloat16."""
    names = ["openvino"] if bfloat16 else ["onnxruntime", "openvino"]
    return [name for name in names if installed(name)] if installed("onnx") else []


def compiled(network: Lite0, places: Tensor, share: float) -> Compiled | None:
    """Return the network in the best runtime there is; one that cannot be imported is told of, and passed over."""
    low = [block.convs[0].weight.dtype == torch.bfloat16 for block in network.blocks].count(True)
    for name in runtimes(bool(low)):
        try:
            return Compiled(network, places, share, name, low)
        except ImportError as error:
            warnings.warn(
                f"{name} cannot be used and lite is slower: {error}; install fewshot[fast] again", stacklevel=2
            )
    return None


class Compiled:
    """A function from prepared pictures to embeddings.  [n, 3, 224, 224] uint8 -> [n, 1280 + T]

    `places` [1000, T] are those of the network's classes in text space, which get this share of the squared norm. The
    function may be called from several threads. It takes as many cores as torch does, each with pictures of its own:
    at one picture together they would wait for each other after every layer, for long where others decode meanwhile.
    The last `low` blocks run in bfloat16, the rest in float32.
    """

    def __init__(self, network: Lite0, places: Tensor, share: float, runtime: str, low: int) -> None:
        self._made_of = network, places, share, runtime, low
        split, cores = len(network.blocks) - low, torch.get_num_threads()
        graphs = (
            [(lite_graph.whole(network), "f32")]
            if not low
            else [(lite_graph.front(network, split), "f32"), (lite_graph.rear(network, split), "bf16")]
        )
        graphs.append((lite_graph.joined(places, share), "f32"))
        self._runs = [_onnxruntime(g) if runtime == "onnxruntime" else _openvino(g, kind, cores) for g, kind in graphs]
        self._cores, self._piece = cores, PIECE[runtime]
        self._pool: tuple[int, ThreadPoolExecutor] | None = None  # process whose threads they are

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as what it was made of."""
        return Compiled, self._made_of

    def __call__(self, pixels: Tensor) -> Tensor:
        """Embed prepared pictures."""
        if self._pool is None or self._pool[0] != os.getpid():  # threads do not come along when a process forks
            self._pool = os.getpid(), ThreadPoolExecutor(self._cores, thread_name_prefix="network")
        _, pool = self._pool
        return torch.from_numpy(np.concatenate(list(pool.map(self._infer, pixels.split(self._piece)))))

    def _infer(self, piece: Tensor) -> NDArray[np.float32]:
        pixels: Arrays = [piece.permute(0, 2, 3, 1).contiguous().numpy()]
        return reduce(lambda values, run: run(values), self._runs, pixels)[0]


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
