"""CUDA graphs through the driver API, for a library without graphs of its own.

Eight functions of ``libcuda.so.1``, by the names that they have had since CUDA 11.4
(https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html). The caller makes the
context current.
"""

from __future__ import annotations

import ctypes
from typing import Any

from edgeseg.errors import DeviceError, RuntimeMissing

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class DriverGraphs:
    """Capture and replay on streams whose handles are those of the driver.

    Args:
        library: Loaded driver library; ``libcuda.so.1`` by default.

    Raises:
        RuntimeMissing: The library is missing.
    """

    def __init__(self, library: Any = None) -> None:
        try:
            self._library: Any = library or ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise RuntimeMissing(
                f"there is no NVIDIA driver on this machine ({error})",
                hint="install the driver, then run `edgeseg doctor`",
            ) from error

    def begin(self, stream: int) -> None:
        """Start capturing the work that this thread queues on ``stream``."""
        mode = ctypes.c_int(_THREAD_LOCAL)
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), mode)

    def end(self, stream: int) -> int:
        """End the capture and return an executable graph; the stream leaves capture mode anyway."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            self._call(
                "cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0)
            )
        finally:
            self._call("cuGraphDestroy", graph)
        return int(ready.value or 0)

    def launch(self, graph: int, stream: int) -> None:
        """Launch a graph."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy(self, graph: int) -> None:
        """Destroy a graph."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _call(self, name: str, *arguments: Any) -> None:
        status = int(getattr(self._library, name)(*arguments))
        if status:
            word, text = (self._text(ask, status) for ask in ("cuGetErrorName", "cuGetErrorString"))
            raise DeviceError(f"{name}: {word} ({text})")

    def _text(self, ask: str, status: int) -> str:
        text = ctypes.c_char_p()
        getattr(self._library, ask)(ctypes.c_int(status), ctypes.byref(text))
        return (text.value or b"unknown").decode(errors="replace")
