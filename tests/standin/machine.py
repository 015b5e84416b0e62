"""The machine that a stand-in pretends to be on."""

from collections.abc import Callable
from dataclasses import dataclass

from standin.device import Device


@dataclass(frozen=True)
class Machine:
    """What TensorRT would find.

    Attributes:
        gpu: Name of the GPU; None for a machine without one, where engines build in
            TensorRT-RTX alone and run nowhere.
        dla_cores: Deep-learning accelerators, 0 on a desktop.
        refuses: ONNX operators that the parser does not take.
        build_error: What the builder logs instead of building.
        device: The GPU through CUDA: addresses are of its memory and a call waits in its
            stream. None runs a network at once, on any memory.
        refuses_call: Told whether the stream is being captured; True lets the call fail.
    """

    gpu: str | None = "Stand-in GPU"
    dla_cores: int = 0
    refuses: tuple[str, ...] = ()
    build_error: str = ""
    device: Device | None = None
    refuses_call: Callable[[bool], bool] = lambda capturing: False
