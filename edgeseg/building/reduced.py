"""The FP32 network in reduced precision, written with its side-car and held against FP32."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import onnxruntime

from edgeseg import sidecar as sidecars
from edgeseg.artifacts import sha256_bytes, write_atomic
from edgeseg.building.config import BuildConfig
from edgeseg.building.source import Source
from edgeseg.card import Precision
from edgeseg.console import Track
from edgeseg.data.folders import Split, read_split
from edgeseg.documents import load
from edgeseg.engines import open_engine
from edgeseg.engines.onnxruntime import int8_saturates
from edgeseg.errors import ArtifactError, MismatchedArtifact, UsageError
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.gate import enforce, judge
from edgeseg.precision.graph import (
    derived_card,
    precision_report,
    read_card,
    serialize,
    write_card,
)
from edgeseg.precision.int8 import require_tensorrt_form, to_int8
from edgeseg.precision.ranges import Ranges, check_ranges
from edgeseg.sidecar import GateResult, SideCar, sidecar_path

logger = logging.getLogger(__name__)


def reduced_graph(
    source: Source,
    config: BuildConfig,
    flavour: Literal["onnxruntime", "tensorrt"],
    shop: Path,
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
    require_precision(report, config.precision)
    data = serialize(model)
    path = shop / name
    write_atomic(path, data)
    made = SideCar(
        artifact_sha256=sha256_bytes(data),
        artifact_bytes=len(data),
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
    gate = _gate(source, config, path, pictures, track)
    made.model_copy(update={"gate": gate}).save(sidecar_path(path))
    return path


def _ranges(source: Source, config: BuildConfig) -> tuple[Ranges, list[Path]]:
    path = config.ranges or source.path.with_name(source.named("ranges", "json"))
    if not path.exists():
        raise UsageError(
            f"INT8 needs measured ranges, and there is no {path}",
            mend=f"edgeseg calibrate {source.path} --from DIR (or a video, or camera:0)",
        )
    ranges = load(Ranges, path)
    return ranges, check_ranges(ranges, path, source.path)


def _default_pictures(source: Source, config: BuildConfig) -> list[Path]:
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
    source: Source,
    config: BuildConfig,
    candidate: Path,
    pictures: Sequence[Path],
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
        result = judge(reference, engine, judged, limits=config.limits, track=track)
    enforce(result, candidate)
    return result


def require_precision(report: sidecars.PrecisionReport, precision: Precision) -> None:
    """Refuse a graph in which nothing computes as it was asked; raises MismatchedArtifact."""
    if report.precision != precision:
        raise MismatchedArtifact(
            f"{precision} was asked for and nothing in the graph computes in it",
            mend="name fewer nodes with --keep",
        )
