"""The commands ``calibrate`` and ``build``: from a network to an engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from edgeseg.cli.flattening import flat
from edgeseg.cli.options import Json, MaxPixels, Network, Overwrite, allow_pixels
from edgeseg.cli.output import finish
from edgeseg.console import progress_bar
from edgeseg.errors import UsageError
from edgeseg.options.base import Option, Seed
from edgeseg.options.building import BuildConfig, BuiltFor, Foreign, Method, Select
from edgeseg.options.streaming import Access

if TYPE_CHECKING:
    from edgeseg.artifacts.card import Precision
    from edgeseg.engines.tensorrt import LayerTable

_LAYERS_SHOWN = 24

logger = logging.getLogger(__name__)


@flat
def calibrate(
    source: Annotated[
        str,
        Option("Source of real pictures: folder, glob, video, URL or camera:N.", names="--from"),
    ],
    network: Network = None,
    count: Annotated[int, Field(ge=1), Option("Number of pictures to select.")] = 128,
    select: Annotated[Select, Option("Selection of pictures.")] = "k-centre",
    method: Annotated[Method, Option("Range estimation.")] = "minmax",
    out: Annotated[Path | None, Option("Manifest file; default: calib/RUN/manifest.json.")] = None,
    *,
    access: Access,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """Select pictures and measure tensor ranges for INT8."""
    allow_pixels(max_pixels)  # before the imports, which bring OpenCV

    from edgeseg.artifacts.files import refuse_to_replace, require_text
    from edgeseg.artifacts.partials import alone
    from edgeseg.building.fp32 import artifact_name
    from edgeseg.export.on_demand import network_of
    from edgeseg.precision.calibration import collect, outputs_of, sheet_path
    from edgeseg.precision.ranges import check_measurable, measure_ranges
    from edgeseg.runs import network_place, newest_run
    from edgeseg.sources.credentials import with_credentials, with_trust
    from edgeseg.sources.spec import parse_source

    network = network or newest_run()
    path = network_place(network)
    manifest = out or Path("calib") / path.absolute().parent.name / "manifest.json"
    spec = with_credentials(parse_source(source), access.credentials)
    (spec,) = with_trust([spec], access.ca, access.insecure_camera)
    target = path.with_name(artifact_name(path, "ranges", "json"))
    made = (*outputs_of(source, manifest), target)
    for place in (manifest, target, Path(source)):
        require_text(place)  # The manifest and the ranges contain these paths.
    refuse_to_replace(*made, overwrite=overwrite, inputs=[path, Path(source)])
    with alone(manifest, doing="collects"), alone(target, doing="measures"):
        refuse_to_replace(*made, overwrite=overwrite)  # Another process may have just finished.
        path = network_of(network)
        check_measurable(path)  # a bad network is refused before frames are taken for it
        pictures = collect(
            spec, manifest, count=count, select=select, seed=seed, track=progress_bar
        )
        ranges = measure_ranges(path, manifest, method=method, track=progress_bar)
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


@flat
def build(
    network: Network = None,
    fp32: Annotated[bool, Option("Build in full precision.", names="--fp32")] = False,
    fp16: Annotated[bool, Option("Build in half precision.", names="--fp16")] = False,
    int8: Annotated[
        bool, Option("Build in 8-bit precision; run calibrate first.", names="--int8")
    ] = False,
    *,
    configure: Callable[..., BuildConfig],
    foreign: Foreign = None,
    runtime: BuiltFor = "auto",
    layers: Annotated[
        Path | None, Option("TensorRT: write a list of all layers to this JSON file.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Build an engine, and reject it if it is not accurate."""
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.building import build as build_engine
    from edgeseg.building import outputs_of
    from edgeseg.engines.choice import best_here
    from edgeseg.export.on_demand import network_of
    from edgeseg.runs import network_place, newest_run

    precision = _precision(fp32=fp32, fp16=fp16, int8=int8, onnx=foreign)
    if layers is not None and not runtime.startswith("tensorrt"):
        raise UsageError(
            "--layers is for TensorRT engines only",
            hint="add `--runtime tensorrt` or `--runtime tensorrt-rtx`",
        )
    network = network or _beside(foreign) or newest_run()
    config = configure(
        onnx=network_place(network),
        precision=precision,
        runtime=best_here() if runtime == "auto" else runtime,
        overwrite=overwrite,
    )
    read = [config.onnx, *filter(None, [foreign, config.ranges, config.data])]
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


def _beside(onnx: Path | None) -> Path | None:
    """Return the FP32 network in the same folder as ``onnx``, or None if there is none."""
    from edgeseg.runs import NETWORK

    network = None if onnx is None else onnx.with_name(NETWORK)
    return network if network is not None and network.is_file() and network != onnx else None


def _precision(*, fp32: bool, fp16: bool, int8: bool, onnx: Path | None) -> Precision:
    given: dict[Precision, bool] = {"fp32": fp32, "fp16": fp16, "int8": int8}
    chosen = [precision for precision, asked in given.items() if asked]
    if onnx is not None and not chosen:
        from edgeseg.building.foreign import precision_of

        return precision_of(onnx)
    if len(chosen) != 1:
        raise UsageError(
            f"one precision is needed, found {' and '.join(chosen) or 'none'}",
            hint="edgeseg build --fp16 (or --int8, or --fp32)",
        )
    return chosen[0]
