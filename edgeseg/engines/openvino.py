"""OpenVINO on the CPU: the faster engine on x86-64 processors, if installed."""

from __future__ import annotations

import contextlib
import copy
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.sidecar import ComputesIn, SideCar
from edgeseg.engines.base import Capabilities, Engine
from edgeseg.engines.cpu import int8_saturates
from edgeseg.engines.external_data import metadata_props
from edgeseg.engines.network import (
    GraphPort,
    card_from_metadata,
    check_ports,
    require_network,
    require_threads,
    seven_bit_weights,
    vouched,
)
from edgeseg.errors import (
    CorruptArtifact,
    InferenceError,
    MismatchedArtifact,
    RuntimeMissing,
    UsageError,
)
from edgeseg.machine import physical_cores
from edgeseg.ops.argmax import argmax

_first_use = threading.Lock()

INSTALL = "pip install 'edgeseg[openvino]'"

_COMPUTES_IN: dict[str, ComputesIn] = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
_NUMPY_NAMES = {"f32": "float32", "u8": "uint8"}
_TELEMETRY = "openvino_telemetry"
_PLACES = re.compile(
    r"Exception from \S+:\d+:|(?:Check '.*?' )?failed at \S+:\d+:|FrontEnd API failed with \w+:",
    re.DOTALL,
)


class OpenVinoEngine(Engine):
    """An ONNX network in OpenVINO on the CPU.

    An FP32 network computes in FP32. For other networks OpenVINO chooses the precision of
    floating-point layers: bfloat16 if the processor has it, else FP32; see ``computes_in``.

    Label maps lie in a buffer of the runtime that the next call overwrites. A second thread
    needs an engine of its own; threads are not pinned, since two engines of one thread each
    would be pinned to the same core.

    Args:
        path: ``model.PRECISION.openvino.onnx``, or another ONNX network with a card inside.
        threads: CPU threads; None uses one per physical core that this process may use.
        sidecar: Its side-car, if it is not on disk yet; the bytes are not checked then.

    Raises:
        RuntimeMissing: OpenVINO is not installed.
        UsageError: The file does not exist, or ``threads`` is below 1.
        CorruptArtifact: The file is empty, truncated, altered, or not an ONNX network.
        MismatchedArtifact: The card is missing or does not match the graph, or activations
            are int8, which OpenVINO computes wrongly.
    """

    runtime = "openvino"

    def __init__(
        self, path: Path, threads: int | None = None, sidecar: SideCar | None = None
    ) -> None:
        require_threads(threads)
        self.path = Path(path)
        self._free = threads is None
        sidecar = sidecar or vouched(self.path)
        require_network(self.path)
        self.card = card_from_metadata(metadata_props(self.path), str(self.path))
        openvino = library()
        model = _read(openvino, self.path)
        inputs, outputs = _ports(model.inputs), _ports(model.outputs)
        self.capabilities = Capabilities(check_ports(inputs, outputs, self.card, str(self.path)))
        _refuse_signed_activations(model, str(self.path))
        self._properties = _properties(self.card, sidecar)
        properties = self._properties | _side_by_side(1, threads or physical_cores())
        self._compiled = _compile(openvino, model, self.path, properties)
        found = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.computes_in = _COMPUTES_IN.get(found)
        self._request: Any = self._compiled.create_infer_request()

    def split(self, count: int, threads: int) -> Sequence[OpenVinoEngine]:
        """Open engines that share one compiled network, with a request each.

        It is copied from this engine's, which takes a fraction of the time of compiling again.
        """
        if not self._free:
            return ()
        properties = self._properties | _side_by_side(count, threads)
        try:
            exported = self._compiled.export_model()
            compiled = library().Core().import_model(exported, "CPU", properties)
        except RuntimeError as error:
            raise InferenceError(f"{self.path.name}: {_reason(error)}") from error
        engines = [copy.copy(self) for _ in range(count)]
        for engine in engines:
            engine._free, engine._compiled = False, compiled
            engine._request = compiled.create_infer_request()
        return engines

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        if self._request is None:
            raise UsageError(f"{self.path.name} was closed")
        try:
            results = self._request.infer(
                [np.ascontiguousarray(batch)], share_inputs=True, share_outputs=True
            )
        except RuntimeError as error:
            raise InferenceError(f"{self.path.name}: {_reason(error)}") from error
        result = results[0]
        if self.card.output == "logits":
            return argmax(result)
        labels: NDArray[np.uint8] = result
        return labels

    def close(self) -> None:
        """Drop the compiled network."""
        self._request = self._compiled = None


def library() -> Any:
    """Import the module ``openvino`` without its telemetry.

    Raises:
        RuntimeMissing: OpenVINO is not installed, or fails to import.
    """
    try:
        with _without_telemetry():
            import openvino
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "openvino"
        raise RuntimeMissing(
            "OpenVINO is not installed" if missing else f"OpenVINO does not import: {error}",
            hint=INSTALL,
        ) from error
    # Two threads that convert their first types at the same time would wait for one another for
    # ever: one in C++ for the table of types with the GIL held, one for the GIL to fill it.
    with _first_use:
        openvino.Type.f32.to_dtype()
    return openvino


def version() -> str:
    """OpenVINO's version without build number, e.g. ``2026.4.1``; raises as :func:`library`."""
    return str(library().__version__).split("-")[0]


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hide the package ``openvino_telemetry`` during the import.

    Importing OpenVINO (2026.4, ``openvino/tools/ovc/__init__.py``) otherwise sends an event to
    www.google-analytics.com from a forked process, and keeps an identifier and a counter below
    the home folder, unless the user has opted out. Without that package it takes a stand-in of
    its own that sends nothing.
    """
    known = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if known is None:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = known


def _properties(card: ModelCard, sidecar: SideCar | None) -> dict[str, Any]:
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    if card.precision == "fp32":
        # Its default is bfloat16 where the processor has it, which is not what the name says.
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    if card.precision == "int8" and int8_saturates() and not seven_bit_weights(sidecar):
        # Full-range weights, made on a CPU with VNNI: computed in floating point from the same
        # rounded values, as slow as FP32, since the int8 kernels saturate.
        properties["LP_TRANSFORMS_MODE"] = False
    return properties


def _side_by_side(requests: int, threads: int) -> dict[str, Any]:
    return {"NUM_STREAMS": requests, "INFERENCE_NUM_THREADS": requests * threads}


def _read(openvino: Any, path: Path) -> Any:
    """Read with the ONNX front end only: otherwise others try the file first and print errors."""
    try:
        front_end = openvino.frontend.FrontEndManager().load_by_framework("onnx")
        return front_end.convert(front_end.load(str(path)))
    except Exception as error:  # Its classes share no base but Exception.
        raise _unusable(path, "read", error) from error


def _compile(openvino: Any, model: Any, path: Path, properties: dict[str, Any]) -> Any:
    try:
        return openvino.Core().compile_model(model, "CPU", properties)
    except RuntimeError as error:
        raise _unusable(path, "compile", error) from error


def _unusable(path: Path, act: str, error: Exception) -> CorruptArtifact:
    return CorruptArtifact(
        f"{path}: OpenVINO {version()} cannot {act} it ({_reason(error)})",
        hint="build it again with `edgeseg build --runtime openvino --overwrite`, or copy it again",
    )


def _reason(error: Exception) -> str:
    """The error's message or its summary, without locations in OpenVINO's source."""
    text = str(error).rpartition("Summary:")[2]
    return " ".join(_PLACES.sub("", text).split())[:300].strip(" .-")


def _ports(values: Iterable[Any]) -> list[GraphPort]:
    """Convert OpenVINO's ``Output``, in which a dynamic dimension is an interval."""
    return [
        GraphPort(
            value.any_name,
            _NUMPY_NAMES.get(kind := value.element_type.get_type_name(), kind),
            tuple(d.get_length() if d.is_static else None for d in value.partial_shape),
        )
        for value in values
    ]


def _refuse_signed_activations(model: Any, origin: str) -> None:
    """Refuse int8 activations, TensorRT's form: they kept 94 % of the labels, 99 % in ONNX Runtime.

    Measured with OpenVINO 2026.4 on U-Nets; with uint8 activations both keep as many.
    """
    for node in model.get_ops():
        if node.get_type_name() != "Convert" or node.get_element_type().get_type_name() != "i8":
            continue
        rounding = node.input_value(0).get_node()
        if (
            rounding.get_type_name() == "FakeQuantize"
            and rounding.input_value(0).get_node().get_type_name() != "Constant"
        ):
            raise MismatchedArtifact(
                f"{origin}: its activations are quantised to int8, which OpenVINO computes "
                "wrongly; it needs uint8 activations",
                hint="quantise for OpenVINO: `edgeseg build --int8 --runtime openvino`",
            )
