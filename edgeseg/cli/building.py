"""``export``, ``calibrate`` and ``build``: from a checkpoint to an engine."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.options import (
    Json,
    Network,
    OptionalData,
    SplitName,
    one_of,
)
from edgeseg.console import progress_bar
from edgeseg.errors import UsageError
from edgeseg.output import finish

if TYPE_CHECKING:
    from edgeseg.card import Precision

log = logging.getLogger(__name__)


def export(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="model.safetensors or run folder; default: newest run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Default: model.onnx beside it.")] = None,
    dynamic_batch: Annotated[bool, typer.Option(help="Any batch size instead of 1.")] = False,
    as_json: Json = False,
) -> None:
    """Write the checkpoint as ONNX, argmax included, and check it against PyTorch."""
    from edgeseg.export import export_onnx
    from edgeseg.runs import CHECKPOINT, NETWORK, resolve

    path = resolve(checkpoint, (CHECKPOINT,), "edgeseg train --data DIR")
    result = export_onnx(path, out or path.with_name(NETWORK), dynamic_batch=dynamic_batch)
    finish(
        as_json,
        {
            "network": str(result.path),
            "bytes": result.path.stat().st_size,
            "parity": asdict(result.parity),
        },
    )


def calibrate(
    source: Annotated[
        str, typer.Option("--from", help="Folder, glob, video, URL or camera:N of real pictures.")
    ],
    network: Network = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures to take.")] = 64,
    method: Annotated[str, typer.Option(help="minmax or percentile.")] = "minmax",
    out: Annotated[
        Path | None, typer.Option(help="Manifest; default calib/RUN/manifest.json.")
    ] = None,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Pick calibration pictures and measure the range of every tensor, for INT8."""
    from edgeseg.loading import load
    from edgeseg.precision.calibration import collect
    from edgeseg.precision.ranges import measure_ranges
    from edgeseg.runs import RANGES, network_of

    chosen = one_of("--method", method, ("minmax", "percentile"))
    path = network_of(network)
    load(path).close()  # a bad network is refused before frames are taken for it
    manifest = out or Path("calib") / path.absolute().parent.name / "manifest.json"
    pictures = collect(source, manifest, count=count, seed=seed, track=progress_bar)
    ranges = measure_ranges(path, manifest, method=chosen, track=progress_bar)
    target = path.with_name(RANGES)
    ranges.save(target)
    finish(
        as_json,
        {
            "manifest": str(manifest),
            "pictures": len(pictures.files),
            "set_sha256": pictures.set_sha256,
            "ranges": str(target),
            "tensors": len(ranges.ranges),
            "method": method,
        },
    )


def build(
    network: Network = None,
    fp32: Annotated[bool, typer.Option("--fp32", help="Full precision.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="8 bit; calibrate first.")] = False,
    runtime: Annotated[
        str, typer.Option(help="onnxruntime, tensorrt-rtx, or auto: the best that runs here.")
    ] = "auto",
    target: Annotated[
        list[str] | None,
        typer.Option(help="TensorRT-RTX: GPU to compile for, e.g. sm_86; repeatable."),
    ] = None,
    ranges: Annotated[
        Path | None, typer.Option(help="INT8: default model.ranges.json beside the network.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Nodes to leave in FP32, by name or pattern; repeatable."),
    ] = None,
    data: OptionalData = None,
    split: SplitName = "val",
    max_drop: Annotated[
        float, typer.Option(min=0, help="Points of mean IoU that may be lost on --data.")
    ] = 1.0,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=100, help="Per cent of equal pixels without --data.")
    ] = 98.0,
    as_json: Json = False,
) -> None:
    """Build an engine, compare it with FP32, and refuse it where it lost too much."""
    from edgeseg.building import BuildConfig
    from edgeseg.building import build as build_engine
    from edgeseg.engines.tensorrt import PlanOptions
    from edgeseg.runs import network_of

    precision = _precision(fp32=fp32, fp16=fp16, int8=int8)
    result = build_engine(
        BuildConfig(
            onnx=network_of(network),
            precision=precision,
            runtime=one_of("--runtime", runtime, ("auto", "onnxruntime", "tensorrt-rtx")),
            plan=PlanOptions(targets=tuple(target or ())),
            ranges=ranges,
            keep=tuple(keep or ()),
            data=data,
            split=split,
            max_drop=max_drop / 100,
            min_agreement=min_agreement / 100,
        ),
        track=progress_bar,
    )
    made = result.sidecar
    finish(
        as_json,
        {
            "engine": str(result.engine),
            "runtime": made.runtime,
            "precision": made.card.precision,
            "targets": list(made.targets),
            "bytes": result.engine.stat().st_size,
            "low_precision_share": made.precision.low_precision_share if made.precision else None,
            "gate": made.gate.model_dump() if made.gate else None,
        },
    )


def _precision(*, fp32: bool, fp16: bool, int8: bool) -> Precision:
    chosen: list[Precision] = []
    if fp32:
        chosen.append("fp32")
    if fp16:
        chosen.append("fp16")
    if int8:
        chosen.append("int8")
    if len(chosen) != 1:
        raise UsageError(
            f"one precision is needed, found {' and '.join(chosen) or 'none'}",
            mend="edgeseg build --fp16 (or --int8, or --fp32)",
        )
    return chosen[0]
