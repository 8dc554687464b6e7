"""Where a number came from: versions, and what it cost."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version

import torch


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import numpy

    return {
        "fewshot": version("fewshot"),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def peak_mb(device: torch.device) -> float:
    """Largest memory so far in MB: of the process, or of torch's allocator on a GPU; 0 where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "win32":
        return 0.0
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used / 1e3
