"""Run a network with any of its tensors as outputs, its large weights kept on disk.

A session holds weights twice, and copying and serialising its graph up to five times: for an FCN
that exceeds the memory of a small machine. Here they are mapped from a temporary file.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from edgeseg.artifacts.workshop import workshop
from edgeseg.precision.graph import at_card_size, copy_of, load_model, serialize, tensors, typed

LARGE = 1 << 18
"""Smallest number of elements of a weight that is moved to the file: 1 MiB of float32."""

_FILE = "weights"
_PAGE = 4096  # Mapped weights must start at a page boundary.


@dataclass(frozen=True)
class OpenNetwork:
    """A typed graph at the size of its card, and the folder of its external weights."""

    graph: ModelProto
    folder: Path

    def session(self, names: Sequence[str]) -> Any:
        """Create an ONNX Runtime session that outputs the float32 tensors ``names``."""
        graph, known = copy_of(self.graph), tensors(self.graph)
        del graph.graph.output[:]
        for name in names:
            value = helper.make_tensor_value_info(name, TensorProto.FLOAT, known[name].shape)
            graph.graph.output.append(value)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Weights in the layout of the fastest kernels would be a copy of all of them; an arena
        # keeps what the largest picture needed.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self.folder)
        )
        return onnxruntime.InferenceSession(
            serialize(graph), options, providers=["CPUExecutionProvider"]
        )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[OpenNetwork]:
    """Open an ONNX file; its large weights are in a temporary file beside it until the block ends.

    Raises:
        UsageError: The file does not exist, or its folder is not writable.
        CorruptArtifact: The file is not an ONNX network.
        MismatchedArtifact: Types or shapes contradict each other.
    """
    with contextlib.ExitStack() as stack:
        graph, folder = load_model(path), path.parent
        if any(map(_is_large, graph.graph.initializer)):
            folder = stack.enter_context(workshop(path.parent))
            graph = _without_large(graph, folder / _FILE)
        yield OpenNetwork(typed(at_card_size(graph), str(path)), folder)


def run(session: Any, tensor: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """All outputs for one picture (1, C, H, W), repeated where the graph has a larger fixed batch.

    Each has the batch as its first dimension, as the graph has it.
    """
    (source,) = session.get_inputs()
    batch = source.shape[0] if isinstance(source.shape[0], int) else 1
    outputs: list[NDArray[np.float32]] = session.run(
        None, {source.name: np.repeat(tensor, batch, axis=0)}
    )
    return outputs


def _is_large(weight: TensorProto) -> bool:
    return bool(weight.HasField("raw_data")) and math.prod(weight.dims) >= LARGE


def _without_large(model: ModelProto, path: Path) -> ModelProto:
    """A copy of ``model`` whose large weights are in ``path``; they are taken out of ``model``."""
    with path.open("wb") as stream:
        for weight in filter(_is_large, model.graph.initializer):
            _move(weight, stream)
    # Protobuf frees what was cleared with the last reference to the message, not before.
    return copy_of(model)


def _move(weight: TensorProto, stream: BinaryIO) -> None:
    """Move the bytes of a weight to a file, and store their location in the graph."""
    stream.write(bytes(-stream.tell() % _PAGE))
    offset = stream.tell()
    stream.write(weight.raw_data)
    entries = {"location": _FILE, "offset": offset, "length": stream.tell() - offset}
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weight.external_data.add(key=key, value=str(value))
