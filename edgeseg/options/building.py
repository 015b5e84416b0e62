"""Options of a build: the engine to make, and the accuracy that it may lose."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgeseg.artifacts.card import Precision
from edgeseg.errors import UsageError
from edgeseg.options.base import Option, OptionalData, Options, SplitName
from edgeseg.options.parsing import Size, batch_profile, size_profile, width_height

Select = Literal["k-centre", "random", "first", "spread"]
"""How the pictures of a calibration set are selected, see :mod:`edgeseg.data.selection`."""

Method = Literal["minmax", "percentile", "entropy", "mse"]
"""How ranges are estimated, see :mod:`edgeseg.precision.thresholds`."""


EngineRuntime = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
HardwareCompatibility = Literal["none", "ampere+", "same"]

TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
"""GPUs to compile for that a shell completes; TensorRT-RTX knows which others there are."""

BuiltFor = Annotated[EngineRuntime, Option("Runtime; auto: the best on this machine.")]
Foreign = Annotated[
    Path | None,
    Option("Q/DQ or FP16 graph of NETWORK made by another tool, e.g. ModelOpt.", names="--onnx"),
]
Ranges = Annotated[
    Path | None, Option("INT8: tensor ranges; default: those that calibrate wrote beside NETWORK.")
]
Keep = Annotated[tuple[str, ...], Option("Nodes to keep in FP32, by name or pattern; repeatable.")]
Quantise = Annotated[
    tuple[str, ...], Option("INT8: nodes to quantise that are kept in FP32 by default; repeatable.")
]


def _points(text: str) -> float | None:
    """Parse points into a fraction of 1; None for ``none``."""
    if text == "none":
        return None
    try:
        points = float(text)
    except ValueError:
        points = -1.0
    if not 0 <= points <= 100:
        raise UsageError(f"expected points from 0 to 100, or none, not {text!r}")
    return points / 100


def _in_points(fraction: float | None) -> str:
    return "none" if fraction is None else f"{100 * fraction:g}"


MaxDrop = Annotated[
    float,
    Field(ge=0, le=1),
    Option("Maximum loss of mean IoU on --data, in points.", per_cent=True),
]
MaxClassDrop = Annotated[
    float | None,
    Field(ge=0, le=1),
    Option(
        "Maximum loss of IoU of any class on --data, in points, or none. Only a loss that is not "
        "due to chance counts.",
        parse=_points,
        format=_in_points,
    ),
]
MinAgreement = Annotated[
    float,
    Field(ge=0, le=1),
    Option("Minimum share of equal pixels without --data, in per cent.", per_cent=True),
]


@dataclass(frozen=True)
class GateLimits(Options):
    """Limits on how far an engine of reduced precision may differ from FP32, as fractions of 1.

    ``max_class_drop`` limits the loss of IoU of each class; None for no limit.
    """

    max_drop: MaxDrop = 0.01
    min_agreement: MinAgreement = 0.98
    max_class_drop: MaxClassDrop = 0.05


def _timing_cache(text: str) -> Path | str:
    return text if text in ("auto", "none") else Path(text)


def _profile(values: tuple[int | Size, ...]) -> str:
    return ":".join(str(v) if isinstance(v, int) else width_height(v) for v in values)


@dataclass(frozen=True)
class PlanOptions(Options):
    """Build options of a TensorRT engine. None leaves a setting to TensorRT.

    ``targets`` are compute capabilities; none stands for every GPU that the runtime supports, and
    TensorRT-RTX alone compiles for another GPU than the one at hand. ``batch`` and ``sizes`` are
    the smallest, typical and largest batch and (height, width) of a network where these are
    dynamic. With ``tf32``, FP32 products are rounded to 10 bits of mantissa on tensor cores.
    """

    targets: Annotated[
        tuple[str, ...],
        Option(
            "TensorRT-RTX: GPU to compile for, e.g. sm_86; repeatable.",
            names="--target",
            suggestions=TARGETS,
        ),
    ] = ()
    batch: Annotated[
        tuple[int, int, int] | None,
        Option(
            "TensorRT: batch sizes as smallest:typical:largest; default: 1:1:8.",
            parse=batch_profile,
            format=_profile,
        ),
    ] = None
    sizes: Annotated[
        tuple[Size, Size, Size] | None,
        Option(
            "TensorRT: input sizes as smallest:typical:largest, e.g. 256x128:512x256:1024x512.",
            parse=size_profile,
            format=_profile,
        ),
    ] = None
    workspace_mib: Annotated[
        int | None,
        Field(ge=1),
        Option("TensorRT: maximum scratch memory, in MiB.", names="--workspace"),
    ] = None
    optimisation_level: Annotated[
        int | None, Field(ge=0, le=5), Option("TensorRT: 0 builds fastest, 5 searches longest.")
    ] = None
    timing_cache: Annotated[
        Path | Literal["auto", "none"],
        Option(
            "TensorRT: timing cache file; auto: one per version and GPU; or none.",
            parse=_timing_cache,
            suggestions=("auto", "none"),
        ),
    ] = "auto"
    dla_core: Annotated[
        int | None,
        Field(ge=0),
        Option("Jetson: run on this deep-learning accelerator.", names="--dla"),
    ] = None
    gpu_fallback: Annotated[
        bool, Option("Run layers that the DLA does not support on the GPU.")
    ] = True
    hardware_compatibility: Annotated[
        HardwareCompatibility,
        Option("TensorRT: other GPUs to run on; same: those of the same compute capability."),
    ] = "none"
    tf32: Annotated[bool, Option("TensorRT: allow TF32 for FP32 operations.")] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch is not None and not 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]:
            raise UsageError(
                f"expected a batch of 1 <= smallest <= typical <= largest, not {self.batch}"
            )
        for axis in zip(*(self.sizes or ()), strict=True):
            if not 1 <= axis[0] <= axis[1] <= axis[2]:
                raise UsageError(
                    "expected sizes whose heights and widths are each smallest <= typical <= "
                    f"largest, not {axis}"
                )


@dataclass(frozen=True)
class BuildConfig(Options):
    """Network, precision and runtime of a build, and the accuracy that it may lose.

    Limits are fractions of 1. ``max_class_drop`` is that of :mod:`edgeseg.precision.worst_class`;
    None for no limit. Without ``data``, the accuracy gate uses the calibration pictures.

    Attributes:
        onnx: The FP32 network, ``model.onnx``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        plan: Build options for TensorRT; ONNX Runtime and OpenVINO take none.
        reduce_range: Use 7-bit weights for INT8 in ONNX Runtime and OpenVINO; by default only if
            this CPU would saturate otherwise.
        threads: CPU threads used by the gate.
        overwrite: Allow the graph that TensorRT compiles to replace a file of the same name
            beside the network, such as an engine of ONNX Runtime. The engine itself is always
            replaced: the command line checks that before.
    """

    onnx: Path
    precision: Precision
    runtime: BuiltFor = "auto"
    plan: PlanOptions = field(default_factory=PlanOptions)
    ranges: Ranges = None
    foreign: Foreign = None
    keep: Keep = ()
    quantise: Quantise = ()
    auto_mixed: Annotated[
        bool,
        Option("Keep as few layers in FP32 as the accuracy check allows.", names="--auto-mixed"),
    ] = False
    reduce_range: bool | None = None
    data: OptionalData = None
    split: SplitName = "val"
    max_drop: MaxDrop = GateLimits.max_drop
    min_agreement: MinAgreement = GateLimits.min_agreement
    max_class_drop: MaxClassDrop = GateLimits.max_class_drop
    threads: int | None = None
    overwrite: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantise and self.precision != "int8":
            raise UsageError(f"--quantise is for --int8, not --{self.precision}")
        if self.auto_mixed and self.precision == "fp32":
            raise UsageError(
                "--auto-mixed keeps layers in FP32; expected --int8 or --fp16 beside it"
            )
        if self.foreign is not None and (self.keep or self.quantise or self.auto_mixed):
            raise UsageError(
                "--keep, --quantise and --auto-mixed make a graph, and --onnx brings one",
                hint="omit them, or build from the FP32 network with --int8 or --fp16",
            )

    @property
    def limits(self) -> GateLimits:
        """The limits of the accuracy gate."""
        return GateLimits(self.max_drop, self.min_agreement, self.max_class_drop)
