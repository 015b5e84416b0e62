"""Configuration and result of a build."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.sidecar import SideCar
from edgeseg.engines.tensorrt.layers import LayerTable
from edgeseg.engines.tensorrt.options import PlanOptions
from edgeseg.errors import UsageError
from edgeseg.precision.gate import Limits

EngineRuntime = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True)
class BuildConfig:
    """Network, precision and runtime of a build, and the accuracy it may lose.

    Attributes:
        onnx: The FP32 network, ``model.onnx``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        runtime: ``onnxruntime``, ``openvino``, ``tensorrt`` or ``tensorrt-rtx``; ``auto`` chooses
            the best that runs on this machine.
        plan: Build options for TensorRT; ONNX Runtime and OpenVINO take none.
        ranges: Measured ranges for INT8; ``model.ranges.json`` beside the network by default.
        foreign: Graph of that precision, made from the network by another tool, to build from.
        keep: Shell patterns of node names that stay in floating point.
        quantise: Shell patterns of nodes to quantise although the INT8 policy keeps them.
        auto_mixed: Keep as few layers as possible in FP32 so that the gate passes.
        reduce_range: Use 7-bit weights for INT8 in ONNX Runtime and OpenVINO; by default only if
            this CPU would saturate otherwise.
        data: Labelled pictures for the gate; by default it uses the calibration pictures.
        split: Split of ``data`` to use.
        max_drop: Largest accepted loss of mean IoU on ``data``, a fraction of 1.
        min_agreement: Smallest share of pixels that must keep their label if there is no
            ``data``, a fraction of 1.
        max_class_drop: Largest accepted loss of IoU of a class on ``data``, a fraction of 1; None
            for no limit. See :mod:`edgeseg.precision.worst_class`.
        threads: CPU threads used by the gate.
        overwrite: Allow the graph that TensorRT compiles to replace a file of the same name
            beside the network, such as an engine of ONNX Runtime. The engine itself is always
            replaced: the command line checks that before.
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
    max_class_drop: float | None = 0.05
    threads: int | None = None
    overwrite: bool = True

    def __post_init__(self) -> None:
        _ = self.limits  # refused now, not after the long part
        if self.quantise and self.precision != "int8":
            raise UsageError(f"--quantise is for --int8, not --{self.precision}")
        if self.auto_mixed and self.precision == "fp32":
            raise UsageError(
                "--auto-mixed keeps layers in FP32; expected --int8 or --fp16 beside it"
            )
        if self.foreign is not None and (self.keep or self.quantise or self.auto_mixed):
            raise UsageError(
                "--keep, --quantise and --auto-mixed make a graph, and --onnx brings one",
                hint="leave them out, or build from the FP32 network with --int8 or --fp16",
            )

    @property
    def limits(self) -> Limits:
        """The gate's limits; raises UsageError if one is not a fraction of 1."""
        return Limits(self.max_drop, self.min_agreement, self.max_class_drop)


@dataclass(frozen=True)
class BuildResult:
    """The engine file, its side-car, and optional tables and plots.

    ``layers`` is the layer table of a TensorRT engine, ``plot`` the trade-off of ``auto_mixed``.
    """

    engine: Path
    sidecar: SideCar
    layers: LayerTable | None = None
    plot: Path | None = None
