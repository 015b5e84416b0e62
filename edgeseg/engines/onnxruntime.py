"""ONNX Runtime: the engine of every machine, on its CPU."""

from __future__ import annotations

import functools
import logging
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeseg.card import CARD_KEY, ModelCard
from edgeseg.documents import parse
from edgeseg.engines.base import Engine
from edgeseg.engines.external_data import require_local_weights
from edgeseg.errors import CorruptArtifact, InferenceError, MismatchedArtifact, UsageError
from edgeseg.sidecar import SideCar, verify

logger = logging.getLogger(__name__)

MAX_BYTES = 2 * 1024**3
"""Protobuf ends there; what is larger is no ONNX network."""

Shape = tuple[int | None, ...]
"""Of one picture; None where a dimension is open."""

_VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})

# It prints what it raises as well, in several lines of C++; the exception is enough.
onnxruntime.set_default_logger_severity(4)


class OnnxRuntimeEngine(Engine):
    """An ONNX network in ONNX Runtime on the CPU.

    Args:
        path: ``model.onnx``, ``model.fp16.onnx`` or ``model.int8.onnx`` with a card inside.
        threads: CPU threads; None takes one a physical core.

    Raises:
        UsageError: No such file, or ``threads`` below 1.
        CorruptArtifact: Empty, truncated, no ONNX network, or altered since it was made.
        MismatchedArtifact: There is no card in it, or its graph is not what the card says.
    """

    runtime = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.path = Path(path)
        sidecar = verify(self.path, required=False)
        if sidecar is None:
            logger.info("%s has no side-car: nothing vouches for its bytes", self.path)
        self._session: Any = _open(self.path, _session_options(threads, sidecar))
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.card = card_from_metadata(metadata, str(self.path))
        self.batch = _check_graph(self._session, self.card, str(self.path))
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        if self._session is None:
            raise UsageError(f"{self.path.name} was closed")
        try:
            (result,) = self._session.run([self._output], {self._input: batch})
        except Exception as error:  # ONNX Runtime's classes share no base but Exception.
            raise InferenceError(f"{self.path.name}: {_reason(error)}") from error
        if self.card.output == "logits":
            return np.asarray(np.argmax(result, axis=1), np.uint8)
        labels: NDArray[np.uint8] = result
        return labels

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def card_from_metadata(metadata: Mapping[str, str], origin: str) -> ModelCard:
    """The card among the ``metadata_props`` of an ONNX file.

    Raises:
        MismatchedArtifact: There is none, or another schema version.
        CorruptArtifact: It is no card.
    """
    if CARD_KEY not in metadata:
        raise MismatchedArtifact(
            f"{origin}: its metadata_props have no key {CARD_KEY!r}, so its classes and its "
            "preprocessing are unknown",
            mend="export it with `edgeseg export`, or write a ModelCard there: "
            f"onnx.helper.set_model_props(model, {{{CARD_KEY!r}: card.to_json()}})",
        )
    return parse(ModelCard, metadata[CARD_KEY], f"{origin} ({CARD_KEY})")


@functools.cache
def int8_saturates() -> bool:
    """Whether int8 products lose bits on this CPU unless weights have 7 bits.

    x86 without VNNI multiplies u8 × s8 in pairs with ``vpmaddubsw``, whose int16 sums stop at
    32767: 255 × 127 twice comes out as half. ONNX Runtime documents it under "When and why do
    I need to try U8U8?"; Arm and VNNI add in 32 bits.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True  # Unknown: right and slower beats fast and wrong.
    return not _VNNI_FLAGS & set(text.split())


def _session_options(threads: int | None, sidecar: SideCar | None) -> Any:
    if threads is not None and threads < 1:
        raise UsageError(f"an engine runs on at least 1 thread, not {threads}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # Waiting threads that spin make inference no faster and take the cores from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    seven_bits = sidecar is not None and sidecar.build_options.get("reduce_range") is True
    if int8_saturates() and not seven_bits:
        # Full-range weights, made on a CPU with VNNI or for TensorRT: slower kernels that do
        # not saturate. Graphs without int8 are not touched by it.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _open(path: Path, options: Any) -> Any:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise CorruptArtifact(f"{path}: expected at most {MAX_BYTES} bytes, found {size}")
    require_local_weights(path)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's classes share no base but Exception.
        raise CorruptArtifact(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({_reason(error)})",
            mend="export it again with `edgeseg export`, or copy it again",
        ) from error


def _reason(error: Exception) -> str:
    """The last clause of ``[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model … failed:…``."""
    text = " ".join(str(error).split()).split(" : ", 3)[-1]
    return re.sub(r"^Load model from .*? failed: ?", "", text)[:300].rstrip(".")


def _check_graph(session: Any, card: ModelCard, origin: str) -> int | None:
    """Hold inputs and outputs against the card; the batch size, None where any will do."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise MismatchedArtifact(
            f"{origin}: expected one input and one output, found "
            f"{[i.name for i in inputs]} and {[o.name for o in outputs]}"
        )
    spec = card.input
    size: Shape = (None, None) if spec.open_size else (spec.height, spec.width)
    _check_tensor(origin, "input", inputs[0], "tensor(float)", (spec.channels, *size))
    if card.output == "logits":
        shape = (len(card.classes), *size)
        _check_tensor(origin, "output", outputs[0], "tensor(float)", shape)
    else:
        _check_tensor(origin, "output", outputs[0], "tensor(uint8)", size)
    batch = inputs[0].shape[0]
    return batch if isinstance(batch, int) else None


def _check_tensor(origin: str, role: str, tensor: Any, kind: str, picture: Shape) -> None:
    found = tuple(tensor.shape or ())
    # An open dimension has a name in the graph, or none.
    sizes = tuple(size if isinstance(size, int) else None for size in found[1:])
    if tensor.type != kind or sizes != picture:
        wanted = ", ".join("any" if size is None else str(size) for size in picture)
        raise MismatchedArtifact(
            f"{origin}: its card says {role} {kind} (N, {wanted}), "
            f"its graph says {tensor.name!r} {tensor.type} {found}",
            mend="export it again with `edgeseg export`",
        )
