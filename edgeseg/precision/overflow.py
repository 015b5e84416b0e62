"""Find values that overflow FP16, on real pictures, before the cast and after it.

ONNX Runtime cannot show it by running the cast network on a CPU: where it has no FP16 kernel
it computes in FP32 and drops the casts between two of its operators, so that an activation of
100000 passes there and is infinite on a GPU. So the FP32 network's own values decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeseg.artifacts.card import InputSpec
from edgeseg.console import Track, silent
from edgeseg.errors import NonFiniteOutput
from edgeseg.precision.fp16 import LARGEST
from edgeseg.precision.graph import copy_of, serialize, tensors, typed
from edgeseg.precision.ranges import calibration_tensor

MARGIN = 2.0
"""Safety factor between the largest measured activation and the largest FP16 value.

Pictures to come reach farther than those of a calibration set, and a kernel that accumulates
in FP16 passes through sums larger than its result. One bit of exponent is given for both: it
costs no precision, which is the same at every magnitude.
"""


@dataclass(frozen=True)
class Overflow:
    """A node that overflows in FP16, the tensor that shows it, and the magnitude reached."""

    node: str
    tensor: str
    magnitude: float


def overflowing(
    model: ModelProto, extremes: Mapping[str, tuple[float, float]], *, margin: float = MARGIN
) -> tuple[Overflow, ...]:
    """The nodes of an FP32 network that must stay FP32, in the order of the graph.

    These are the nodes with a weight beyond 65504, or with an input or output activation
    beyond 65504 / ``margin``.

    Args:
        model: FP32 network.
        extremes: Lowest and highest value of each activation; missing ones are not checked.
        margin: Safety factor for activations, see :data:`MARGIN`.
    """
    reached = {name: max(abs(low), abs(high)) * margin for name, (low, high) in extremes.items()}
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(weight)
            reached[weight.name] = float(np.abs(values).max(initial=0.0))
    found = []
    for node in model.graph.node:
        sizes = {name: reached[name] for name in (*node.input, *node.output) if name in reached}
        worst = max(sizes, key=lambda name: sizes[name], default=None)
        if worst is not None and sizes[worst] > LARGEST:
            true = sizes[worst] / (margin if worst in extremes else 1)
            found.append(Overflow(node.name, worst, true))
    return tuple(found)


def require_finite(
    model: ModelProto,
    spec: InputSpec,
    pictures: Sequence[Path],
    *,
    origin: str,
    track: Track = silent,
) -> None:
    """Run a network of any floating precision and check that every activation is finite.

    Raises:
        NonFiniteOutput: An activation holds NaN or infinity, or an FP16 one a value beyond
            65504. The message names the first such activation and the picture.
    """
    model = typed(model, origin)
    known = tensors(model)
    names = [
        name
        for node in model.graph.node
        for name in node.output
        if name in known and known[name].dtype in (TensorProto.FLOAT, TensorProto.FLOAT16)
    ]
    ends = [LARGEST if known[n].dtype == TensorProto.FLOAT16 else np.inf for n in names]
    session = _session(_with_sizes(model, names))
    (source,) = session.get_inputs()
    batch = source.shape[0] if isinstance(source.shape[0], int) else 1
    for path in track(pictures, "looking for overflow", len(pictures)):
        tensor = np.repeat(calibration_tensor(path, spec)[np.newaxis], batch, axis=0)
        values = np.array(session.run(None, {source.name: tensor}), np.float64)
        # Row by row: largest magnitude, and a mean in which NaN shows whatever the maximum does.
        sizes, means = values.reshape(len(names), 2).T
        bad = ~np.isfinite(sizes) | ~np.isfinite(means) | (sizes > ends)
        if bad.any():
            place = int(np.argmax(bad))
            raise NonFiniteOutput(
                f"{origin}: tensor {names[place]!r} holds NaN or infinity on {path}",
                hint="keep the nodes around it in FP32 (`--keep 'PATTERN'`), or calibrate on "
                "more pictures so that they are found",
            )


def _with_sizes(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """``model`` with the largest magnitude and the mean of each tensor as its only outputs."""
    copy = copy_of(model)
    del copy.graph.output[:]
    for index, name in enumerate(names):
        single, size = f"edgeseg_single_{index}", f"edgeseg_size_{index}"
        copy.graph.node.extend(
            [
                helper.make_node("Cast", [name], [single], single, to=TensorProto.FLOAT),
                helper.make_node("Abs", [single], [size], size),
            ]
        )
        for kind in ("ReduceMax", "ReduceMean"):
            probe = f"edgeseg_{kind}_{index}"
            copy.graph.node.append(helper.make_node(kind, [size], [probe], probe, keepdims=0))
            copy.graph.output.append(helper.make_tensor_value_info(probe, TensorProto.FLOAT, []))
    return copy


def _session(model: ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(serialize(model), options, providers=providers)
