"""CUDA from Python: device memory, copies, streams and graphs behind one small interface.

Two libraries are supported, with equal features: cuda-python, whose wheels need no compiler, and
pycuda, which many Jetson programs use already; set ``EDGESEG_CUDA=pycuda`` to choose it. The device
is CUDA's first; ``CUDA_VISIBLE_DEVICES`` selects it.
"""

from __future__ import annotations

import os

from edgeseg.engines.cuda.device import Cuda, DeviceFacts
from edgeseg.engines.cuda.memory import DeviceMemory, Pinned
from edgeseg.errors import UsageError

__all__ = ["Cuda", "DeviceFacts", "DeviceMemory", "Pinned", "open_cuda"]

VARIABLE = "EDGESEG_CUDA"


def open_cuda(name: str | None = None) -> Cuda:
    """Open CUDA's first GPU.

    Args:
        name: ``cuda-python`` or ``pycuda``; None uses ``EDGESEG_CUDA``, or cuda-python if that
            is not set.

    Raises:
        UsageError: The name is unknown.
        RuntimeMissing: The library, the driver or a GPU is missing.
        DeviceError: The driver fails to start.
    """
    name = name or os.environ.get(VARIABLE) or "cuda-python"
    if name == "cuda-python":
        from edgeseg.engines.cuda.cuda_python import CudaPython

        return CudaPython()
    if name == "pycuda":
        from edgeseg.engines.cuda.pycuda import PyCuda

        return PyCuda()
    raise UsageError(f"{VARIABLE} is 'cuda-python' or 'pycuda', not {name!r}")
