"""One inference as a CUDA graph: captured once, replayed with one call.

A small network is over before the processor has queued its kernels one by one. A graph holds the
copies and kernels of one shape with their addresses, and is launched as a whole.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from edgeseg.engines.cuda.device import Cuda
from edgeseg.errors import DeviceError

logger = logging.getLogger(__name__)

Enqueue = Callable[[], bool]


class Replay:
    """Queues the work of an inference on a stream, from its second call on as a graph.

    The first call of a shape runs as it is, which TensorRT asks for before a capture: it settles
    what depends on the shape. Another shape drops the graph, since it would write the old one's
    output. Where the capture fails, all runs without a graph from then on, and a warning says so.

    Args:
        stream: Stream on which all work is queued.
        enqueue: Queues copies and kernels; returns False if the network's runtime fails.
        wanted: Whether to capture graphs at all.
    """

    def __init__(self, cuda: Cuda, stream: int, enqueue: Enqueue, *, wanted: bool) -> None:
        self._cuda, self._stream, self._enqueue = cuda, stream, enqueue
        self.wanted = wanted
        self._shape: tuple[int, ...] | None = None
        self._graph: int | None = None

    def run(self, shape: tuple[int, ...]) -> bool:
        """Queue one inference of ``shape``; returns False if its runtime fails."""
        if shape != self._shape:
            self.drop()
            self._shape = shape
            return self._enqueue()
        if self.wanted and self._graph is None:
            self._capture()
        if self._graph is None:
            return self._enqueue()
        self._cuda.launch(self._graph, self._stream)
        return True

    def drop(self) -> None:
        """Discard the graph and its shape."""
        graph, self._graph, self._shape = self._graph, None, None
        if graph is not None:
            self._cuda.destroy_graph(graph)

    def _capture(self) -> None:
        self._cuda.begin_capture(self._stream)
        reason, graph = "", None
        try:
            if not self._enqueue():
                reason = "its runtime refused the call"
        except DeviceError as error:
            reason = str(error)
        try:
            graph = self._cuda.end_capture(self._stream)
        except DeviceError as error:
            reason = reason or str(error)
        if not reason:
            self._graph = graph
            return
        # A graph without the kernels would give the last picture's labels for ever.
        if graph is not None:
            with contextlib.suppress(DeviceError):
                self._cuda.destroy_graph(graph)
        self.wanted = False
        logger.warning("this engine runs without a CUDA graph: %s", reason)
