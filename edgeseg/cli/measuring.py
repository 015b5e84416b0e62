"""The commands ``sensitivity``, ``doctor`` and ``demo``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.options import (
    Json,
    Network,
    OptionalData,
    Overwrite,
    SplitName,
    Threads,
    one_of,
)
from edgeseg.cli.output import finish
from edgeseg.console import progress_bar, stdout_console
from edgeseg.errors import UsageError

log = logging.getLogger(__name__)


def sensitivity(
    network: Network = None,
    precision: Annotated[str, typer.Option(help="Precision to measure: int8 or fp16.")] = "int8",
    runtime: Annotated[
        str, typer.Option(help="INT8 scheme of this runtime: onnxruntime, openvino, tensorrt-rtx.")
    ] = "onnxruntime",
    data: OptionalData = None,
    split: SplitName = "val",
    pictures: Annotated[int, typer.Option(min=1, help="Number of pictures to measure on.")] = 32,
    ranges: Annotated[
        Path | None,
        typer.Option(help="INT8: tensor ranges; default: model.ranges.json beside NETWORK."),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Nodes to keep in FP32 throughout; repeatable.")
    ] = None,
    quantise: Annotated[
        list[str] | None, typer.Option(help="Nodes to quantise, as in build; repeatable.")
    ] = None,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Also reduce all layers but one, for each.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Plot the ranking to this .png file.")] = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Rank layers by the accuracy lost when each is reduced alone."""
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.building import BuildConfig, measure_sensitivity
    from edgeseg.runs import network_of, network_place, newest_run

    if plot:
        from edgeseg.report.precision import check_suffix, save_sensitivity

        check_suffix(plot)
    network = network or newest_run()
    if plot:
        read = [network_place(network), *filter(None, [ranges, data])]
        refuse_to_replace(plot, overwrite=overwrite, inputs=read)
    config = BuildConfig(
        onnx=network_of(network),
        precision=one_of("--precision", precision, ("int8", "fp16")),
        runtime=one_of("--runtime", runtime, ("onnxruntime", "openvino", "tensorrt-rtx")),
        ranges=ranges,
        keep=tuple(keep or ()),
        quantise=tuple(quantise or ()),
        data=data,
        split=split,
        threads=threads,
    )
    found = measure_sensitivity(config, pictures=pictures, reverse=reverse, track=progress_bar)
    result = found.to_dict()
    if plot:
        save_sensitivity(plot, result["layers"], metric=found.metric, precision=found.precision)
    result["plot"] = str(plot) if plot else None
    if as_json:
        finish(as_json, result)
        return
    from edgeseg.report.tables import render_rich, sensitivity_table

    stdout_console().print(render_rich(sensitivity_table(result["layers"], found.metric)))
    del result["layers"]
    finish(as_json, result)


def doctor(
    record: Annotated[
        Path | None,
        typer.Option(help="Also write the findings to this .json file, for a bug report."),
    ] = None,
    machine: Annotated[
        Path | None,
        typer.Option(help="Diagnose the machine recorded in this file instead of this one."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Diagnose this machine and suggest fixes.

    Always exits with 0; `healthy` in the --json output says whether engines run.
    """
    from edgeseg import doctor as doctors
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.doctor.probe import probe

    if record is not None and machine is not None:
        raise UsageError("--record describes this machine and --machine another: one of them")
    if record is not None:
        refuse_to_replace(record, overwrite=overwrite)
    facts = probe() if machine is None else doctors.read(machine)
    if record is not None:
        doctors.record(facts, record)
        log.info("recorded %s: no host, user or home folder is in it", record)
    findings = doctors.examine(facts)
    if as_json:
        finish(as_json, findings.to_dict())
    else:
        doctors.show(findings, stdout_console())


def demo(
    out: Annotated[Path | None, typer.Option(help="Output folder; default: edgeseg-demo.")] = None,
    as_json: Json = False,
) -> None:
    """Run every step on bundled pictures, in minutes without a GPU."""
    from edgeseg.cli.demo import run_demo

    summary = run_demo(out)
    told = ("seconds", "peak_rss_mib", "val_mean_iou", "report", "recording")
    finish(as_json, summary if as_json else {key: summary[key] for key in told})
