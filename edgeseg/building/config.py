"""What a build is asked for, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgeseg.card import Precision
from edgeseg.engines.tensorrt.layers import LayerTable
from edgeseg.engines.tensorrt.options import PlanOptions
from edgeseg.precision.gate import Limits
from edgeseg.sidecar import SideCar

EngineRuntime = Literal["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True)
class BuildConfig:
    """What to build, for what, and how much accuracy it may cost.

    Attributes:
        onnx: The FP32 network, ``model.onnx``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        runtime: ``onnxruntime``, ``tensorrt`` or ``tensorrt-rtx``; ``auto`` is the best that
            runs here.
        plan: How a TensorRT engine is built; ONNX Runtime and OpenVINO have no use for it.
        ranges: Measured ranges for INT8; ``model.ranges.json`` beside the network by default.
        keep: Shell patterns of node names that stay in floating point.
        reduce_range: 7-bit weights for INT8 in ONNX Runtime; by default where this CPU
            would saturate otherwise.
        data: Labelled pictures for the gate; without them the calibration pictures serve.
        split: Which part of ``data``.
        max_drop: Mean IoU that may be lost on ``data``, a fraction of 1.
        min_agreement: Pixels that must keep their label without ``data``, a fraction of 1.
        threads: CPU threads of the gate.
    """

    onnx: Path
    precision: Precision
    runtime: EngineRuntime = "auto"
    plan: PlanOptions = field(default_factory=PlanOptions)
    ranges: Path | None = None
    keep: tuple[str, ...] = ()
    reduce_range: bool | None = None
    data: Path | None = None
    split: str = "val"
    max_drop: float = 0.01
    min_agreement: float = 0.98
    threads: int | None = None

    def __post_init__(self) -> None:
        self.limits  # noqa: B018 - refused now, not after the long part

    @property
    def limits(self) -> Limits:
        """What may be lost; raises UsageError where that is no fraction of 1."""
        return Limits(self.max_drop, self.min_agreement)


@dataclass(frozen=True)
class BuildResult:
    """The engine file, what stands in its side-car, and the layers of a TensorRT engine."""

    engine: Path
    sidecar: SideCar
    layers: LayerTable | None = None
