"""ONNX Runtime on the CPU: the engine that runs on every machine."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeseg.artifacts.sidecar import SideCar
from edgeseg.engines.base import Capabilities, Engine
from edgeseg.engines.cpu import int8_saturates
from edgeseg.engines.network import (
    GraphPort,
    card_from_metadata,
    check_ports,
    require_network,
    require_threads,
    seven_bit_weights,
    vouched,
)
from edgeseg.errors import CorruptArtifact, InferenceError, UsageError
from edgeseg.machine import physical_cores
from edgeseg.ops.argmax import argmax

_NUMPY_NAMES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}

# It also prints the errors that it raises, with several lines of C++ context.
onnxruntime.set_default_logger_severity(4)


class OnnxRuntimeEngine(Engine):
    """An ONNX network in ONNX Runtime on the CPU.

    Args:
        path: ``model.onnx``, ``model.fp16.onnx`` or ``model.int8.onnx`` with a card inside.
        threads: CPU threads; None uses one per physical core that this process may use.
        sidecar: Its side-car, if it is not on disk yet; the bytes are not checked then.

    Attributes:
        ports: Input and output of the graph.

    Raises:
        UsageError: The file does not exist, or ``threads`` is below 1.
        CorruptArtifact: The file is empty, truncated, altered, or not an ONNX network.
        MismatchedArtifact: The card is missing, or does not match the graph.
    """

    runtime = "onnxruntime"

    providers: Sequence[Any] = ("CPUExecutionProvider",)

    def __init__(
        self, path: Path, threads: int | None = None, sidecar: SideCar | None = None
    ) -> None:
        self.path = Path(path)
        self._free = threads is None
        sidecar = sidecar or vouched(self.path)
        self._session: Any = _open(self.path, _session_options(threads, sidecar), self.providers)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.card = card_from_metadata(metadata, str(self.path))
        inputs, outputs = _ports(self._session.get_inputs()), _ports(self._session.get_outputs())
        self.capabilities = Capabilities(check_ports(inputs, outputs, self.card, str(self.path)))
        self.ports = (inputs[0], outputs[0])
        self._input, self._output = inputs[0].name, outputs[0].name

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        self._require_open()
        try:
            (result,) = self._session.run([self._output], {self._input: batch})
        except Exception as error:  # ONNX Runtime's classes share no base but Exception.
            raise InferenceError(f"{self.path.name}: {_reason(error)}") from error
        if self.card.output == "logits":
            return argmax(result)
        labels: NDArray[np.uint8] = result
        return labels

    def split(self, count: int, threads: int) -> Sequence[OnnxRuntimeEngine]:
        """Open engines that share one session, which may run in several threads at a time."""
        if not self._free:
            return ()
        first = type(self)(self.path, threads)
        return [first, *(copy.copy(first) for _ in range(count - 1))]

    def _require_open(self) -> None:
        if self._session is None:
            raise UsageError(f"{self.path.name} was closed")

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def _session_options(threads: int | None, sidecar: SideCar | None) -> Any:
    require_threads(threads)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or physical_cores()
    options.inter_op_num_threads = 1
    # One block for all activations takes more memory (40 MiB with unet-lite) and as much time.
    options.enable_mem_pattern = False
    # Waiting threads that spin make inference no faster and take the cores from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if int8_saturates() and not seven_bit_weights(sidecar):
        # Full-range weights, made on a CPU with VNNI or for TensorRT: slower kernels that do
        # not saturate. Graphs without int8 are not touched by it.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _open(path: Path, options: Any, providers: Sequence[Any]) -> Any:
    require_network(path)
    try:
        return onnxruntime.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime's classes share no base but Exception.
        raise CorruptArtifact(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({_reason(error)})",
            hint="export it again with `edgeseg export --overwrite`, or copy it again",
        ) from error


def _reason(error: Exception) -> str:
    """The last clause of ``[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model … failed:…``."""
    text = " ".join(str(error).split()).split(" : ", 3)[-1]
    return re.sub(r"^Load model from .*? failed: ?", "", text)[:300].rstrip(".")


def _ports(values: Iterable[Any]) -> list[GraphPort]:
    """Convert ONNX Runtime's ``NodeArg``, in which a dynamic dimension is a name or None."""
    return [
        GraphPort(
            value.name,
            _NUMPY_NAMES.get(value.type, value.type),
            tuple(size if isinstance(size, int) else None for size in value.shape or ()),
        )
        for value in values
    ]
