"""The commands ``sensitivity``, ``doctor`` and ``demo``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgeseg.cli.flattening import flat
from edgeseg.cli.options import Json, Network, Overwrite
from edgeseg.cli.output import finish
from edgeseg.console import progress_bar, stdout_console
from edgeseg.errors import UsageError
from edgeseg.options.base import Option, OptionalData, SplitName, Threads
from edgeseg.options.building import BuildConfig, Keep, Quantise, Ranges

logger = logging.getLogger(__name__)


@flat
def sensitivity(
    network: Network = None,
    precision: Annotated[Literal["int8", "fp16"], Option("Precision to measure.")] = "int8",
    runtime: Annotated[
        Literal["onnxruntime", "openvino", "tensorrt-rtx"], Option("INT8 scheme of this runtime.")
    ] = "onnxruntime",
    data: OptionalData = None,
    split: SplitName = "val",
    pictures: Annotated[int, Field(ge=1), Option("Number of pictures to measure on.")] = 32,
    ranges: Ranges = None,
    keep: Keep = (),
    quantise: Quantise = (),
    reverse: Annotated[
        bool, Option("Also reduce all layers but one, for each.", names="--reverse")
    ] = False,
    plot: Annotated[Path | None, Option("Plot the ranking to this .png file.")] = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Rank layers by the accuracy that INT8 or FP16 costs.

    Each layer is reduced alone.
    """
    from edgeseg.artifacts.figures import require_png
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.building import measure_sensitivity
    from edgeseg.export.on_demand import network_of
    from edgeseg.runs import network_place, newest_run

    if plot:
        from edgeseg.precision.plots import save_sensitivity

        require_png(plot, "a plot")
    network = network or newest_run()
    if plot:
        read = [network_place(network), *filter(None, [ranges, data])]
        refuse_to_replace(plot, overwrite=overwrite, inputs=read)
    config = BuildConfig(
        onnx=network_of(network),
        precision=precision,
        runtime=runtime,
        ranges=ranges,
        keep=keep,
        quantise=quantise,
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


@flat
def doctor(
    record: Annotated[
        Path | None, Option("Also write the findings to this .json file, for a bug report.")
    ] = None,
    machine: Annotated[
        Path | None, Option("Diagnose the machine recorded in this file instead of this one.")
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
        raise UsageError(
            "--record describes this machine and --machine another one; give one of them"
        )
    if record is not None:
        refuse_to_replace(record, overwrite=overwrite)
    facts = probe() if machine is None else doctors.read(machine)
    if record is not None:
        doctors.record(facts, record)
        logger.info("recorded %s: it holds no host name, user name or home folder", record)
    findings = doctors.examine(facts)
    if as_json:
        finish(as_json, findings.to_dict())
    else:
        doctors.show(findings, stdout_console())


@flat
def demo(
    out: Annotated[Path | None, Option("Output folder; default: edgeseg-demo.")] = None,
    as_json: Json = False,
) -> None:
    """Run every step on bundled pictures, without a GPU."""
    from edgeseg.cli.demo import run_demo

    summary = run_demo(out)
    told = ("seconds", "peak_rss_mib", "val_mean_iou", "report", "recording")
    finish(as_json, summary if as_json else {key: summary[key] for key in told})
