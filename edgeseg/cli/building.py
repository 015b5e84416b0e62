"""The commands ``export``, ``calibrate`` and ``build``: from a checkpoint to an engine."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from edgeseg.cli.options import (
    Authority,
    Credentials,
    InsecureCameras,
    Json,
    MaxPixels,
    Network,
    OptionalData,
    Overwrite,
    SplitName,
    allow_pixels,
    batch_profile,
    one_of,
    size_profile,
)
from edgeseg.cli.output import finish
from edgeseg.console import progress_bar
from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from edgeseg.artifacts.card import Precision
    from edgeseg.engines.tensorrt import LayerTable
    from edgeseg.export.triton import Serving

_LAYERS_SHOWN = 24

log = logging.getLogger(__name__)


def export(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint or run folder; default: the newest run. "
            "With --triton also a network or an engine."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output file; default: model.onnx beside the checkpoint.")
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option(help="Accept any batch size instead of 1.")
    ] = False,
    dynamic_size: Annotated[
        bool, typer.Option(help="Accept any size that is a multiple of the network's stride.")
    ] = False,
    triton: Annotated[
        Path | None,
        typer.Option(help="Also add the model to this Triton Inference Server repository."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="With --triton: model name; default: CARD-PRECISION.")
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(min=1, help="With --triton: maximum batch size; default: 8."),
    ] = None,
    queue_delay: Annotated[
        float, typer.Option(min=0, help="With --triton: maximum queue delay, in ms.")
    ] = 1.0,
    instances: Annotated[
        int, typer.Option(min=1, help="With --triton: number of model instances.")
    ] = 1,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a checkpoint to ONNX and check it against PyTorch."""
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.artifacts.partials import alone
    from edgeseg.artifacts.sidecar import sidecar_path, verify
    from edgeseg.export.triton import Serving
    from edgeseg.runs import CHECKPOINT, NETWORK, resolve

    serving = Serving(name, max_batch, queue_delay, instances)
    if triton is None and serving != Serving():
        raise UsageError(
            "--name, --max-batch, --queue-delay and --instances say how Triton serves a model",
            hint="add --triton DIR, or leave them out",
        )
    path = resolve(checkpoint, (CHECKPOINT,), "edgeseg train --data DIR")
    if triton is not None and path.suffix in (".onnx", ".engine"):
        if out or dynamic_batch or dynamic_size:
            raise UsageError(
                f"{path} is exported already; --out, --dynamic-batch and --dynamic-size "
                "are for a checkpoint",
                hint="name model.safetensors, or leave them out",
            )
        finish(as_json, _served(path, triton, serving, overwrite=overwrite))
        return
    target = out or path.with_name(NETWORK)
    refuse_to_replace(target, sidecar_path(target), overwrite=overwrite, inputs=[path])
    verify(path, required=False)  # Before torch is imported, which takes seconds.
    from edgeseg.export.network import export_onnx

    with alone(target, doing="writes"):
        result = export_onnx(path, target, dynamic_batch=dynamic_batch, dynamic_size=dynamic_size)
    sizes = result.card.input.open_size
    finish(
        as_json,
        {
            "network": str(result.path),
            "bytes": result.path.stat().st_size,
            **({"open_size": sizes.model_dump()} if sizes else {}),
            "parity": asdict(result.parity),
            **(_served(target, triton, serving, overwrite=overwrite) if triton else {}),
        },
    )


def _served(
    artifact: Path, repository: Path, serving: Serving, *, overwrite: bool
) -> dict[str, object]:
    """Add the artefact to the Triton repository; return the entries for the JSON result."""
    from edgeseg.export.triton import write_repository

    made = write_repository(artifact, repository, serving, overwrite=overwrite)
    return {
        "model": made.model,
        "version": made.version,
        "folder": str(made.folder),
        "backend": made.backend,
        "max_batch": made.max_batch,
    }


def calibrate(
    source: Annotated[
        str,
        typer.Option(
            "--from", help="Source of real pictures: folder, glob, video, URL or camera:N."
        ),
    ],
    network: Network = None,
    count: Annotated[int, typer.Option(min=1, help="Number of pictures to select.")] = 128,
    select: Annotated[
        str, typer.Option(help="Selection of pictures: k-centre, random, first or spread.")
    ] = "k-centre",
    method: Annotated[
        str, typer.Option(help="Range estimation: minmax, percentile, entropy or mse.")
    ] = "minmax",
    out: Annotated[
        Path | None, typer.Option(help="Manifest file; default: calib/RUN/manifest.json.")
    ] = None,
    credentials: Credentials = None,
    ca: Authority = None,
    insecure_camera: InsecureCameras = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """Select pictures and measure tensor ranges for INT8."""
    allow_pixels(max_pixels)  # before the imports, which bring OpenCV

    from edgeseg.artifacts.files import refuse_to_replace, require_text
    from edgeseg.artifacts.partials import alone
    from edgeseg.precision.calibration import collect, outputs_of, sheet_path
    from edgeseg.precision.ranges import check_measurable, measure_ranges
    from edgeseg.precision.selection import SELECTS
    from edgeseg.precision.thresholds import METHODS
    from edgeseg.runs import RANGES, network_of, network_place, newest_run
    from edgeseg.sources.credentials import with_credentials, with_trust
    from edgeseg.sources.spec import parse_source

    chosen = one_of("--method", method, METHODS)
    how = one_of("--select", select, SELECTS)
    network = network or newest_run()
    path = network_place(network)
    manifest = out or Path("calib") / path.absolute().parent.name / "manifest.json"
    (spec,) = with_trust(
        [with_credentials(parse_source(source), credentials)], ca, insecure_camera or ()
    )
    target = path.with_name(RANGES)
    made = (*outputs_of(source, manifest), target)
    for named in (manifest, target, Path(source)):
        require_text(named)  # The manifest and the ranges contain these paths.
    refuse_to_replace(*made, overwrite=overwrite, inputs=[path, Path(source)])
    with alone(manifest, doing="collects"), alone(target, doing="measures"):
        refuse_to_replace(*made, overwrite=overwrite)  # Another process may have just finished.
        path = network_of(network)
        check_measurable(path)  # a bad network is refused before frames are taken for it
        pictures = collect(spec, manifest, count=count, select=how, seed=seed, track=progress_bar)
        ranges = measure_ranges(path, manifest, method=chosen, track=progress_bar)
        ranges.save(target)
    finish(
        as_json,
        {
            "manifest": str(manifest),
            "sheet": str(sheet_path(manifest)),
            "select": select,
            "candidates": pictures.selection.candidates,
            "left_out": pictures.selection.left_out,
            "pictures": len(pictures.files),
            "set_sha256": pictures.set_sha256,
            "ranges": str(target),
            "tensors": len(ranges.ranges),
            "method": method,
        },
    )


def build(
    network: Network = None,
    onnx: Annotated[
        Path | None,
        typer.Option(help="Q/DQ or FP16 graph of NETWORK made by another tool, e.g. ModelOpt."),
    ] = None,
    fp32: Annotated[bool, typer.Option("--fp32", help="Build in full precision.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Build in half precision.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Build in 8-bit precision; run calibrate first.")
    ] = False,
    runtime: Annotated[
        str,
        typer.Option(
            help="onnxruntime, openvino, tensorrt, tensorrt-rtx, or auto: the best on this machine."
        ),
    ] = "auto",
    target: Annotated[
        list[str] | None,
        typer.Option(help="TensorRT-RTX: GPU to compile for, e.g. sm_86; repeatable."),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="TensorRT: batch sizes as smallest:typical:largest; default: 1:1:8."),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="TensorRT: input sizes as smallest:typical:largest, e.g. 256x128:512x256:1024x512."
        ),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(min=1, help="TensorRT: maximum scratch memory, in MiB.")
    ] = None,
    optimisation_level: Annotated[
        int | None,
        typer.Option(min=0, max=5, help="TensorRT: 0 builds fastest, 5 searches longest."),
    ] = None,
    timing_cache: Annotated[
        str,
        typer.Option(help="TensorRT: timing cache file; auto: one per version and GPU; or none."),
    ] = "auto",
    dla: Annotated[
        int | None, typer.Option(min=0, help="Jetson: run on this deep-learning accelerator.")
    ] = None,
    gpu_fallback: Annotated[
        bool, typer.Option(help="Run layers that the DLA does not support on the GPU.")
    ] = True,
    hardware_compatibility: Annotated[
        str,
        typer.Option(
            help="TensorRT: other GPUs to run on: none, ampere+, or same (compute capability)."
        ),
    ] = "none",
    tf32: Annotated[bool, typer.Option(help="TensorRT: allow TF32 for FP32 operations.")] = True,
    layers: Annotated[
        Path | None, typer.Option(help="TensorRT: write a list of all layers to this JSON file.")
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(help="INT8: tensor ranges; default: model.ranges.json beside NETWORK."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Nodes to keep in FP32, by name or pattern; repeatable."),
    ] = None,
    quantise: Annotated[
        list[str] | None,
        typer.Option(help="INT8: nodes to quantise that are kept in FP32 by default; repeatable."),
    ] = None,
    auto_mixed: Annotated[
        bool,
        typer.Option(
            "--auto-mixed", help="Keep as few layers in FP32 as the accuracy check allows."
        ),
    ] = False,
    data: OptionalData = None,
    split: SplitName = "val",
    max_drop: Annotated[
        float, typer.Option(min=0, help="Maximum loss of mean IoU on --data, in points.")
    ] = 1.0,
    max_class_drop: Annotated[
        str,
        typer.Option(
            help="Maximum loss of IoU of any class on --data, in points, or none. Only a loss "
            "that is not due to chance counts."
        ),
    ] = "5",
    min_agreement: Annotated[
        float,
        typer.Option(
            min=0, max=100, help="Minimum share of equal pixels without --data, in per cent."
        ),
    ] = 98.0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Build an engine and reject it if it loses too much accuracy."""
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.building import BuildConfig, EngineRuntime, outputs_of
    from edgeseg.building import build as build_engine
    from edgeseg.engines.choice import best_here
    from edgeseg.engines.tensorrt.options import HardwareCompatibility, PlanOptions
    from edgeseg.runs import network_of, network_place, newest_run

    precision = _precision(fp32=fp32, fp16=fp16, int8=int8, onnx=onnx)
    chosen = one_of("--runtime", runtime, get_args(EngineRuntime))
    if layers is not None and not runtime.startswith("tensorrt"):
        raise UsageError(
            "--layers lists those of a TensorRT engine",
            hint="add `--runtime tensorrt` or `--runtime tensorrt-rtx`",
        )
    network = network or _beside(onnx) or newest_run()
    config = BuildConfig(
        onnx=network_place(network),
        precision=precision,
        foreign=onnx,
        runtime=best_here() if chosen == "auto" else chosen,
        plan=PlanOptions(
            targets=tuple(target or ()),
            batch=batch_profile("--batch", batch),
            sizes=size_profile("--sizes", sizes),
            workspace_mib=workspace,
            optimisation_level=optimisation_level,
            timing_cache=_timing_cache(timing_cache),
            dla_core=dla,
            gpu_fallback=gpu_fallback,
            hardware_compatibility=one_of(
                "--hardware-compatibility",
                hardware_compatibility,
                get_args(HardwareCompatibility),
            ),
            tf32=tf32,
        ),
        ranges=ranges,
        keep=tuple(keep or ()),
        quantise=tuple(quantise or ()),
        auto_mixed=auto_mixed,
        data=data,
        split=split,
        max_drop=max_drop / 100,
        max_class_drop=_points_or_none("--max-class-drop", max_class_drop),
        min_agreement=min_agreement / 100,
        overwrite=overwrite,
    )
    read = [config.onnx, *filter(None, [onnx, ranges, data])]
    made = (*outputs_of(config), *filter(None, [layers]))
    refuse_to_replace(*made, overwrite=overwrite, inputs=read)
    network_of(network)
    result = build_engine(config, track=progress_bar)
    told = result.sidecar
    gate = told.gate.model_dump() if told.gate else None
    # As text, the worst class has a line of its own.
    worst = {} if as_json or gate is None else {"worst_class": gate.pop("worst_class")}
    if result.layers is not None:
        _show_layers(result.layers, layers)
    finish(
        as_json,
        {
            "engine": str(result.engine),
            "runtime": told.runtime,
            "precision": told.card.precision,
            "targets": list(told.targets),
            "bytes": result.engine.stat().st_size,
            "low_precision_share": told.precision.low_precision_share if told.precision else None,
            "low_precision_weights": told.precision.low_precision_weights
            if told.precision
            else None,
            "kept": list(told.precision.kept) if told.precision else [],
            "computes_in": told.computes_in,
            "gate": gate,
            **worst,
            "plot": str(result.plot) if result.plot else None,
            **({"layers": result.layers.model_dump()} if as_json and result.layers else {}),
        },
    )


def _show_layers(table: LayerTable, file: Path | None) -> None:
    """Print one line per layer on stderr, shortened if long; save the full table to ``file``."""
    from rich.table import Table

    from edgeseg.console import stderr_console

    if file is not None:
        table.save(file)
    origin = "of the engine" if table.source == "engine" else "of the network it was built from"
    shown = Table("layer", "type", "precision", "shape", title=f"layers {origin}")
    rows = table.layers
    half = _LAYERS_SHOWN // 2
    for place, layer in enumerate(rows):
        if len(rows) <= _LAYERS_SHOWN or not half <= place < len(rows) - half:
            shape = "×".join("?" if size == -1 else str(size) for size in layer.shape)
            on_dla = " (DLA)" if layer.device == "dla" else ""
            shown.add_row(layer.name, layer.type + on_dla, layer.precision, shape)
        elif place == half:
            more = "" if file else "; --layers FILE holds all"
            shown.add_row(f"… {len(rows) - 2 * half} more{more}")
    stderr_console().print(shown, markup=False)


def _points_or_none(option: str, text: str) -> float | None:
    """A fraction of 1 from points; None for ``none``."""
    if text == "none":
        return None
    try:
        points = float(text)
    except ValueError:
        points = -1.0
    if not 0 <= points <= 100:
        raise UsageError(f"{option} {text}: expected points from 0 to 100, or none")
    return points / 100


def _timing_cache(text: str) -> Path | Literal["auto", "none"]:
    if text == "auto":
        return "auto"
    return "none" if text == "none" else Path(text)


def _beside(onnx: Path | None) -> Path | None:
    """Return the FP32 network in the same folder as ``onnx``, or None if there is none."""
    from edgeseg.runs import NETWORK

    network = None if onnx is None else onnx.with_name(NETWORK)
    return network if network is not None and network.is_file() and network != onnx else None


def _precision(*, fp32: bool, fp16: bool, int8: bool, onnx: Path | None) -> Precision:
    chosen: list[Precision] = []
    if fp32:
        chosen.append("fp32")
    if fp16:
        chosen.append("fp16")
    if int8:
        chosen.append("int8")
    if onnx is not None and not chosen:
        from edgeseg.building.foreign import precision_of

        return precision_of(onnx)
    if len(chosen) != 1:
        raise UsageError(
            f"one precision is needed, found {' and '.join(chosen) or 'none'}",
            hint="edgeseg build --fp16 (or --int8, or --fp32)",
        )
    return chosen[0]
