"""ONNX → engine: reduce the precision, compare with FP32, and only then put it in place.

Everything is made in a folder of its own beside the network and moved when all of it is
there: a build that fails or is refused leaves nothing behind.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime
from onnx import ModelProto

from edgeseg import sidecar as sidecars
from edgeseg.artifacts import sha256_bytes, sha256_file, write_atomic
from edgeseg.card import ModelCard, Precision
from edgeseg.console import Track, silent
from edgeseg.data.folders import Split, read_split
from edgeseg.documents import load
from edgeseg.engines import open_engine, runtimes_here
from edgeseg.engines.onnxruntime import int8_saturates
from edgeseg.engines.tensorrt import Plan, PlanOptions, build_engine, tensorrt_rtx
from edgeseg.errors import ArtifactError, MismatchedArtifact, UsageError
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.gate import Limits, enforce, judge
from edgeseg.precision.graph import (
    derived_card,
    load_model,
    precision_report,
    read_card,
    report_of,
    serialize,
    work,
    write_card,
)
from edgeseg.precision.int8 import require_tensorrt_form, to_int8
from edgeseg.precision.ranges import Ranges, check_ranges
from edgeseg.sidecar import GateResult, SideCar, sidecar_path, verify
from edgeseg.workshop import install, workshop

logger = logging.getLogger(__name__)

EngineRuntime = Literal["auto", "onnxruntime", "tensorrt-rtx"]


@dataclass(frozen=True)
class BuildConfig:
    """What to build, for what, and how much accuracy it may cost.

    Attributes:
        onnx: The FP32 network, ``model.onnx``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        runtime: ``onnxruntime`` or ``tensorrt-rtx``; ``auto`` is the best that runs here.
        targets: Compute capabilities for TensorRT-RTX, e.g. ``sm_86``; none for all.
        batch: Smallest, typical, largest batch of a network whose batch varies (TensorRT-RTX).
        workspace_mib: Scratch memory on the GPU (TensorRT-RTX).
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
    targets: tuple[str, ...] = ()
    batch: tuple[int, int, int] = (1, 1, 8)
    workspace_mib: int | None = None
    ranges: Path | None = None
    keep: tuple[str, ...] = ()
    reduce_range: bool | None = None
    data: Path | None = None
    split: str = "val"
    max_drop: float = 0.01
    min_agreement: float = 0.98
    threads: int | None = None


@dataclass(frozen=True)
class BuildResult:
    """The engine file and what stands in its side-car."""

    engine: Path
    sidecar: SideCar


@dataclass(frozen=True)
class _Source:
    """The FP32 network that everything is made from."""

    path: Path
    model: ModelProto
    card: ModelCard
    sha256: str

    def named(self, *parts: str) -> str:
        """``model.int8.onnx`` of ``model.onnx``."""
        return ".".join((self.path.stem, *parts))


def build(config: BuildConfig, track: Track = silent) -> BuildResult:
    """Build one engine, hold it against FP32, and write it with its side-car.

    ``onnxruntime`` runs ONNX itself: FP32 is ``model.onnx`` as it is, checked by running it;
    the others are ``model.fp16.onnx`` and ``model.int8.onnx``. ``tensorrt-rtx`` gives
    ``model.PRECISION.engine``, judged on the graph it was compiled from, in ONNX Runtime;
    that graph is kept beside it (``model.fp16.onnx``, ``model.int8.tensorrt.onnx``).

    Raises:
        UsageError: The configuration is wrong, or there are no ranges for INT8.
        ArtifactError: Network, ranges or pictures are damaged or do not belong together.
        RuntimeMissing: TensorRT-RTX is asked for and not installed.
        AccuracyGateError: The result differs from FP32 by more than the limit.
    """
    runtime = runtimes_here()[0] if config.runtime == "auto" else config.runtime
    limits = Limits(config.max_drop, config.min_agreement)
    source = _read_source(config)
    if runtime == "onnxruntime":
        if config.targets:
            raise UsageError(
                "ONNX Runtime compiles for no target",
                mend="leave --target out, or add `--runtime tensorrt-rtx`",
            )
        if config.precision == "fp32":
            return _fp32_in_place(source, config)
        with workshop(source.path.parent) as shop:
            graph = _reduced_graph(source, config, "onnxruntime", shop, limits, track)
            return _install([graph], source.path.parent)
    return _build_plan(source, config, limits, track)


def _read_source(config: BuildConfig) -> _Source:
    path = Path(config.onnx)
    verify(path, required=False)
    model = load_model(path)
    card = read_card(model, str(path))
    if card.precision != "fp32":
        raise UsageError(
            f"{path} is a network in {card.precision}; engines are built from the FP32 one",
            mend="name the FP32 network, e.g. model.onnx",
        )
    return _Source(path, model, card, sha256_file(path))


def _fp32_in_place(source: _Source, config: BuildConfig) -> BuildResult:
    with open_engine(source.path, config.threads) as engine:
        engine.warm_up(1)
    made = sidecars.read(source.path)
    if made is None or made.precision is None:
        made = SideCar(
            artifact_sha256=source.sha256,
            card=source.card,
            runtime="onnxruntime",
            runtime_version=onnxruntime.__version__,
            precision=precision_report(source.model, str(source.path)),
        )
        made.save(sidecar_path(source.path))
    return BuildResult(source.path, made)


def _build_plan(source: _Source, config: BuildConfig, limits: Limits, track: Track) -> BuildResult:
    trt = tensorrt_rtx()  # Before the long part: it may be missing.
    options = PlanOptions(config.targets, config.batch, config.workspace_mib)
    with workshop(source.path.parent) as shop:
        graph, model, fed = None, source.model, source.sha256
        if config.precision != "fp32":
            graph = _reduced_graph(source, config, "tensorrt", shop, limits, track)
            model, fed = load_model(graph), sha256_file(graph)
        # FP32 is fed as it lies there, so that its hash is that of model.onnx.
        data = source.path.read_bytes() if graph is None else graph.read_bytes()
        (plan,) = (
            build_engine(data, options, trt=trt) for _ in track([0], "compiling the engine", 1)
        )
        judged = sidecars.read(graph) if graph else None
        made = SideCar(
            artifact_sha256=sha256_bytes(plan.data),
            card=derived_card(source.card, fed, config.precision),
            runtime="tensorrt-rtx",
            runtime_version=plan.version,
            onnx_sha256=fed,
            targets=config.targets,
            precision=_proved(model, plan, config.precision),
            calibration_set=judged.calibration_set if judged else None,
            build_options=dict(plan.options),
            gate=judged.gate if judged else None,
        )
        engine = shop / source.named(config.precision, "engine")
        write_atomic(engine, plan.data)
        made.save(sidecar_path(engine))
        return _install([engine, *([graph] if graph else [])], source.path.parent)


def _proved(model: ModelProto, plan: Plan, precision: Precision) -> sidecars.PrecisionReport:
    """The shares by what TensorRT's own network says of each layer, not by what was asked."""
    nodes = work(model)
    for node in nodes:
        if plan.layers.get(node.node) != node.precision:
            raise MismatchedArtifact(
                f"TensorRT made {plan.layers.get(node.node, 'no')} layer of the "
                f"{node.precision} node {node.node!r}"
            )
    report = report_of(nodes)
    _require_precision(report, precision)
    return report


def _require_precision(report: sidecars.PrecisionReport, precision: Precision) -> None:
    if report.precision != precision:
        raise MismatchedArtifact(
            f"{precision} was asked for and nothing in the graph computes in it",
            mend="name fewer nodes with --keep",
        )


def _reduced_graph(
    source: _Source,
    config: BuildConfig,
    flavour: Literal["onnxruntime", "tensorrt"],
    shop: Path,
    limits: Limits,
    track: Track,
) -> Path:
    """Write the graph of reduced precision and its side-car into ``shop``, gated."""
    options: dict[str, bool | int | float | str] = {}
    if config.keep:
        options["keep"] = " ".join(config.keep)
    ranges, pictures = _ranges(source, config) if config.precision == "int8" else (None, [])
    if ranges is None:
        model, name = to_fp16(source.model, config.keep), source.named("fp16", "onnx")
        pictures = _default_pictures(source, config)
    elif flavour == "onnxruntime":
        narrow = int8_saturates() if config.reduce_range is None else config.reduce_range
        options |= {"reduce_range": narrow, "method": ranges.method}
        model = to_int8(
            source.model, ranges.ranges, flavour=flavour, keep=config.keep, reduce_range=narrow
        )
        name = source.named("int8", "onnx")
    else:
        options["method"] = ranges.method
        model = to_int8(source.model, ranges.ranges, flavour=flavour, keep=config.keep)
        require_tensorrt_form(model, str(source.path))
        name = source.named("int8", "tensorrt", "onnx")
    write_card(model, derived_card(source.card, source.sha256, config.precision))
    report = precision_report(model)
    _require_precision(report, config.precision)
    data = serialize(model)
    path = shop / name
    write_atomic(path, data)
    made = SideCar(
        artifact_sha256=sha256_bytes(data),
        card=read_card(model, name),
        runtime="onnxruntime",
        runtime_version=onnxruntime.__version__,
        onnx_sha256=source.sha256,
        precision=report,
        calibration_set=ranges.set_sha256 if ranges else None,
        build_options=options,
    )
    # Without it the engine under test would not run as it will.
    made.save(sidecar_path(path))
    gate = _gate(source, config, path, pictures, limits, track)
    made.model_copy(update={"gate": gate}).save(sidecar_path(path))
    return path


def _ranges(source: _Source, config: BuildConfig) -> tuple[Ranges, list[Path]]:
    path = config.ranges or source.path.with_name(source.named("ranges", "json"))
    if not path.exists():
        raise UsageError(
            f"INT8 needs measured ranges, and there is no {path}",
            mend=f"edgeseg calibrate {source.path} --from DIR (or a video, or camera:0)",
        )
    ranges = load(Ranges, path)
    return ranges, check_ranges(ranges, path, source.path)


def _default_pictures(source: _Source, config: BuildConfig) -> list[Path]:
    """The calibration pictures of this network, where it has been calibrated.

    FP16 needs no ranges, so stale ones are no reason to refuse it.
    """
    path = source.path.with_name(source.named("ranges", "json"))
    if config.data is not None or not path.exists():
        return []
    try:
        return check_ranges(load(Ranges, path), path, source.path)
    except ArtifactError as error:
        logger.warning("the calibration pictures cannot judge: %s", error)
        return []


def _gate(
    source: _Source,
    config: BuildConfig,
    candidate: Path,
    pictures: Sequence[Path],
    limits: Limits,
    track: Track,
) -> GateResult | None:
    judged: Split | Sequence[Path] = pictures
    if config.data is not None:
        judged = read_split(config.data, config.split)
    if not len(judged):
        logger.warning(
            "the accuracy of %s was NOT compared with FP32: no pictures; "
            "give labelled ones with --data, or calibrate first",
            candidate.name,
        )
        return None
    with (
        open_engine(source.path, config.threads) as reference,
        open_engine(candidate, config.threads) as engine,
    ):
        result = judge(reference, engine, judged, limits=limits, track=track)
    enforce(result, candidate)
    return result


def _install(artifacts: Sequence[Path], folder: Path) -> BuildResult:
    """Move artefacts and side-cars into place; the first one is the engine."""
    placed = [install(artifact, folder) for artifact in artifacts]
    made = sidecars.read(placed[0])
    assert made is not None  # It was moved along.
    return BuildResult(placed[0], made)
