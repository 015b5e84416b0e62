"""What a build is asked for, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgeseg.card import Precision
from edgeseg.engines.tensorrt.layers import LayerTable
from edgeseg.engines.tensorrt.options import PlanOptions
from edgeseg.errors import UsageError
from edgeseg.precision.gate import Limits
from edgeseg.sidecar import SideCar

EngineRuntime = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True)
class BuildConfig:
    """What to build, for what, and how much accuracy it may cost.

    Attributes:
        onnx: The FP32 network, ``model.onnx``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        runtime: ``onnxruntime``, ``openvino``, ``tensorrt`` or ``tensorrt-rtx``; ``auto`` is the
            best that runs here.
        plan: How a TensorRT engine is built; ONNX Runtime and OpenVINO have no use for it.
        ranges: Measured ranges for INT8; ``model.ranges.json`` beside the network by default.
        foreign: A graph of that precision, made from the network elsewhere, to build from.
        keep: Shell patterns of node names that stay in floating point.
        quantise: Shell patterns of nodes to quantise in spite of the policy of INT8.
        auto_mixed: Keep the fewest layers in FP32 with which the gate is passed.
        reduce_range: 7-bit weights for INT8 in ONNX Runtime and OpenVINO; by default where
            this CPU would saturate otherwise.
        data: Labelled pictures for the gate; without them the calibration pictures serve.
        split: Which part of ``data``.
        max_drop: Mean IoU that may be lost on ``data``, a fraction of 1.
        min_agreement: Pixels that must keep their label without ``data``, a fraction of 1.
        threads: CPU threads of the gate.
        overwrite: Whether the graph that TensorRT is fed may replace another of its name beside
            the network, such as an engine of ONNX Runtime. The engine itself is always replaced:
            the command line asks about that before.
    """

    onnx: Path
    precision: Precision
    runtime: EngineRuntime = "auto"
    plan: PlanOptions = field(default_factory=PlanOptions)
    ranges: Path | None = None
    foreign: Path | None = None
    keep: tuple[str, ...] = ()
    quantise: tuple[str, ...] = ()
    auto_mixed: bool = False
    reduce_range: bool | None = None
    data: Path | None = None
    split: str = "val"
    max_drop: float = 0.01
    min_agreement: float = 0.98
    threads: int | None = None
    overwrite: bool = True

    def __post_init__(self) -> None:
        Limits(self.max_drop, self.min_agreement)  # refused now, not after the long part
        if self.quantise and self.precision != "int8":
            raise UsageError(f"--quantise is for --int8, not --{self.precision}")
        if self.auto_mixed and self.precision == "fp32":
            raise UsageError(
                "--auto-mixed keeps layers in FP32; expected --int8 or --fp16 beside it"
            )
        if self.foreign is not None and (self.keep or self.quantise or self.auto_mixed):
            raise UsageError(
                "--keep, --quantise and --auto-mixed make a graph, and --onnx brings one",
                mend="leave them out, or build from the FP32 network with --int8 or --fp16",
            )

    @property
    def limits(self) -> Limits:
        """What may be lost; raises UsageError where that is no fraction of 1."""
        return Limits(self.max_drop, self.min_agreement)


@dataclass(frozen=True)
class BuildResult:
    """The engine file, what stands in its side-car, and what there is to see of it.

    ``layers`` are those of a TensorRT engine, ``plot`` the trade-off of ``auto_mixed``.
    """

    engine: Path
    sidecar: SideCar
    layers: LayerTable | None = None
    plot: Path | None = None
