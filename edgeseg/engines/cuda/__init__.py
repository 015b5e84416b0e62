"""CUDA from Python: device memory, copies, streams and graphs behind one small interface.

Two libraries can stand behind it and neither is preferred for what it can do: cuda-python, whose
wheels need no compiler, and pycuda, which many Jetson programs use already.
``EDGESEG_CUDA=pycuda`` chooses. The device is CUDA's first; ``CUDA_VISIBLE_DEVICES`` says which
one that is.
"""

from __future__ import annotations

import os

from edgeseg.engines.cuda.device import Cuda, DeviceFacts
from edgeseg.engines.cuda.memory import DeviceMemory, Pinned
from edgeseg.errors import UsageError

__all__ = ["Cuda", "DeviceFacts", "DeviceMemory", "Pinned", "open_cuda"]

VARIABLE = "EDGESEG_CUDA"


def open_cuda(name: str | None = None) -> Cuda:
    """CUDA on this machine.

    Args:
        name: ``cuda-python`` or ``pycuda``; None takes ``EDGESEG_CUDA``, and where that is not
            set either, cuda-python.

    Raises:
        UsageError: Another name.
        RuntimeMissing: The library, the driver or a GPU is not here.
        DeviceError: The driver is here and refuses to start.
    """
    name = name or os.environ.get(VARIABLE) or "cuda-python"
    if name == "cuda-python":
        from edgeseg.engines.cuda.cuda_python import CudaPython

        return CudaPython()
    if name == "pycuda":
        from edgeseg.engines.cuda.pycuda import PyCuda

        return PyCuda()
    raise UsageError(f"{VARIABLE} is 'cuda-python' or 'pycuda', not {name!r}")
