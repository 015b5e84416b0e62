"""The command line: options in, one call of the library, one result out.

Every command prints what people read on stderr and its result on stdout: a line or a table,
or with ``--json`` one JSON document. Errors end with the exit code of their class
(:mod:`edgeseg.errors`). Each command imports what it needs when it runs, so that
``edgeseg --help`` stays instant and ``edgeseg stream`` never touches torch.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from edgeseg.console import log_to_stderr, progress_bar, stderr_console, stdout_console
from edgeseg.errors import EdgesegError, RuntimeMissing, UsageError
from edgeseg.output import fail, finish

if TYPE_CHECKING:
    from edgeseg.card import Precision

log = logging.getLogger(__name__)

AUGMENT = ("upright", "any", "none")

# Package → the extra that brings it.
EXTRAS = {
    "cv2": "cpu",
    "onnxruntime": "cpu",
    "torch": "train",
    "kornia": "train",
    "safetensors": "train",
    "onnxscript": "train",
    "onnx": "build",
    "matplotlib": "report",
    "jinja2": "report",
    "tensorrt_rtx": "tensorrt-rtx",
}

app = typer.Typer(
    name="edgeseg",
    help="From a folder of labelled pictures to a segmented camera stream.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich for a help text would double its time
    context_settings={"help_option_names": ["-h", "--help"]},
)


Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of the runtime; default: its own choice.")
]
Data = Annotated[Path, typer.Option(help="Folder with {train,val}/{images,masks|instances}.")]
OptionalData = Annotated[
    Path | None, typer.Option(help="Labelled pictures: {train,val}/{images,masks|instances}.")
]
Network = Annotated[
    Path | None, typer.Argument(help="model.onnx or run folder; default: newest run.")
]
SplitName = Annotated[str, typer.Option(help="Which part of --data.")]


def main() -> NoReturn:
    """Run the command line and exit; entry point of ``edgeseg`` and ``python -m edgeseg``."""
    try:
        app()
    except EdgesegError as error:
        fail(error, as_json="--json" in sys.argv[1:])
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        missing = RuntimeMissing(
            f"this command needs {package}, which is not installed",
            mend=f"pip install 'edgeseg[{EXTRAS[package]}]'",
        )
        fail(missing, as_json="--json" in sys.argv[1:])
    sys.exit(0)


@app.callback()
def _before_every_command() -> None:
    log_to_stderr()


@app.command()
def train(
    data: Data,
    arch: Annotated[str, typer.Option(help="unet-lite or fcn8s.")] = "unet-lite",
    run: Annotated[
        Path | None, typer.Option(help="Folder for the run; default runs/ARCH-DATE.")
    ] = None,
    size: Annotated[str, typer.Option(help="Network input, WIDTHxHEIGHT.")] = "256x256",
    resize: Annotated[str, typer.Option(help="How pictures meet it: stretch, letterbox.")] = (
        "stretch"
    ),
    color: Annotated[str, typer.Option(help="What the network sees: rgb, bgr, gray.")] = "rgb",
    augment: Annotated[
        str, typer.Option(help="Vary pictures: upright (mirrored at most), any way round, none.")
    ] = "upright",
    crop: Annotated[
        str | None, typer.Option(help="Train on random parts of this size, WIDTHxHEIGHT.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    learning_rate: Annotated[float, typer.Option(min=0)] = 3e-3,
    width: Annotated[int | None, typer.Option(help="unet-lite: channels of level 1.")] = None,
    depth: Annotated[int | None, typer.Option(help="unet-lite: number of poolings.")] = None,
    stem_stride: Annotated[
        int | None, typer.Option(help="unet-lite: 2 is about 3x faster, masks 2x coarser.")
    ] = None,
    fc_width: Annotated[int | None, typer.Option(help="fcn8s: channels of fc6, fc7.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="fcn8s: VGG16 convolutions, .safetensors.")
    ] = None,
    seed: int = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Train a network on labelled pictures."""
    from edgeseg.runs import prepare_run
    from edgeseg.training.loop import EpochStats, TrainConfig
    from edgeseg.training.loop import train as train_network

    options = {"width": width, "depth": depth, "stem_stride": stem_stride, "fc_width": fc_width}
    config = TrainConfig(
        data=data,
        run=prepare_run(run, arch, overwrite=overwrite),
        arch=arch,
        options={key: value for key, value in options.items() if value is not None},
        size=_height_width("--size", size),
        color=_one_of("--color", color, ("rgb", "bgr", "gray")),
        orientation=None if augment == "none" else _one_of("--augment", augment, AUGMENT),
        crop=None if crop is None else _height_width("--crop", crop),
        resize=_one_of("--resize", resize, ("stretch", "letterbox")),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weights=weights,
        seed=seed,
    )

    def show(epoch: EpochStats) -> None:
        log.info(
            "epoch %*d/%d  loss %.4f  val mean IoU %.4f  %.1f s",
            *(len(str(epochs)), epoch.epoch, epochs),
            *(epoch.loss, epoch.mean_iou, epoch.seconds),
        )

    result = train_network(config, track=progress_bar, on_epoch=show)
    finish(
        as_json,
        {
            "checkpoint": str(result.checkpoint),
            "val_mean_iou": result.card.metrics["mean_iou"],
            "epochs": len(result.history),
            "seconds": round(result.seconds, 1),
            "curves": str(result.curves),
            "predictions": str(result.strip),
        },
    )


@app.command("eval")
def evaluate(
    data: Data,
    artifact: Annotated[
        Path | None, typer.Argument(help="Checkpoint, ONNX or run folder; default: newest run.")
    ] = None,
    split: SplitName = "val",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy on labelled pictures, the same way for every kind of artefact."""
    from edgeseg.data.folders import read_split
    from edgeseg.evaluation import evaluate as measure
    from edgeseg.loading import load
    from edgeseg.runs import CHECKPOINT, RUNNABLE, resolve

    path = resolve(artifact, (*RUNNABLE, CHECKPOINT), "edgeseg train --data DIR")
    labelled = read_split(data, split)
    with load(path, threads=threads) as engine:
        result = measure(engine, labelled, track=progress_bar)
    finish(as_json, {"artifact": str(path), **result.to_dict()})


@app.command()
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


@app.command()
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

    chosen = _one_of("--method", method, ("minmax", "percentile"))
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


@app.command()
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
    from edgeseg.runs import network_of

    precision = _precision(fp32=fp32, fp16=fp16, int8=int8)
    result = build_engine(
        BuildConfig(
            onnx=network_of(network),
            precision=precision,
            runtime=_one_of("--runtime", runtime, ("auto", "onnxruntime", "tensorrt-rtx")),
            targets=tuple(target or ()),
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


@app.command()
def infer(
    paths: Annotated[
        list[str], typer.Argument(metavar="[ENGINE] PICTURES...", help="Files, folders or globs.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for label maps and overlays.")] = Path(
        "predictions"
    ),
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the overlay.")] = 0.5,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Segment pictures: a label map (PNG, class ids) and an overlay for each."""
    from edgeseg.inference import segment_files
    from edgeseg.loading import load
    from edgeseg.runs import engine_and_pictures

    engine_path, pictures = engine_and_pictures(paths)
    with load(engine_path, threads=threads) as engine:
        results = segment_files(engine, pictures, out, opacity=opacity, track=progress_bar)
    finish(
        as_json,
        {"engine": str(engine_path), "out": str(out), "pictures": [asdict(r) for r in results]},
    )


@app.command()
def stream(
    engine: Annotated[
        Path | None, typer.Argument(help="Engine or run folder; default: the newest run's.")
    ] = None,
    camera: Annotated[int | None, typer.Option(min=0, help="V4L2 camera number.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Video, folder, glob, rtsp:// or http:// URL, /dev/videoN, test:."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write the overlay to this .mkv file.")
    ] = None,
    save_masks: Annotated[Path | None, typer.Option(help="Write label maps here.")] = None,
    json_lines: Annotated[
        Path | None, typer.Option(help="Write one JSON line a frame to this file.")
    ] = None,
    window: Annotated[bool, typer.Option(help="Show the overlay; q quits.")] = True,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the overlay.")] = 0.5,
    realtime: Annotated[
        bool | None,
        typer.Option(
            "--realtime/--every-frame",
            help="Newest frame wins (default for live), or none is lost (default for files).",
        ),
    ] = None,
    max_frames: Annotated[int | None, typer.Option(min=1)] = None,
    duration: Annotated[float | None, typer.Option(min=0, help="Seconds.")] = None,
    strict: Annotated[bool, typer.Option(help="A damaged file ends with exit 5.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Run the camera loop: capture, segment, overlay, show or record."""
    from edgeseg.loading import load
    from edgeseg.runs import RUNNABLE, resolve
    from edgeseg.stream import JsonLines, Masks, Recording, Sink, Stream, Window, parse_source, run

    spec = parse_source(_one_source(camera, source))
    path = resolve(engine, RUNNABLE, "edgeseg build --fp16")
    sinks: list[Sink] = []
    if record is not None:
        sinks.append(Recording(record))
    if save_masks is not None:
        sinks.append(Masks(save_masks))
    if json_lines is not None:
        sinks.append(JsonLines(json_lines))
    if window:
        sinks.append(Window())
    with load(path, threads=threads) as loaded:
        segmented = Stream(
            spec,
            loaded,
            realtime=realtime,
            max_frames=max_frames,
            duration=duration,
            strict=strict,
            opacity=opacity,
        )
        report = run(segmented, sinks)
    finish(
        as_json,
        {
            "engine": str(path),
            **report.to_dict(),
            "recording": None if record is None else str(record),
        },
    )


@app.command()
def bench(
    engines: Annotated[
        list[Path] | None,
        typer.Argument(help="Engines or run folders; default: all of the newest run."),
    ] = None,
    data: OptionalData = None,
    split: SplitName = "val",
    report: Annotated[Path | None, typer.Option(help="Write this .html (or .md) file.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Measuring time an engine.")] = 5.0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure latency and accuracy of engines, interleaved in one run."""
    from contextlib import ExitStack

    from edgeseg.bench.document import BenchConfig
    from edgeseg.bench.measure import Unavailable, noise_frames
    from edgeseg.bench.measure import bench as measure
    from edgeseg.data.folders import read_split
    from edgeseg.errors import RuntimeMissing
    from edgeseg.loading import load
    from edgeseg.report import write_report
    from edgeseg.report.tables import bench_table, render_rich
    from edgeseg.runs import engines_of

    labelled = None if data is None else read_split(data, split)
    opened, unavailable = [], []
    with ExitStack() as stack:
        for path in engines_of(engines or []):
            try:
                opened.append(stack.enter_context(load(path, threads=threads)))
            except RuntimeMissing as error:
                unavailable.append(Unavailable(path, error.message))
        result = measure(
            opened,
            data=labelled,
            images=() if labelled else noise_frames(),
            unavailable=unavailable,
            config=BenchConfig(seconds=seconds, threads=threads),
            track=progress_bar,
        )
    document = result.to_dict()
    if report is not None:
        write_report(report, title="Latency and accuracy", bench=document)
    console = stderr_console() if as_json else stdout_console()
    console.print(render_rich(bench_table(result)))
    for note in result.notes:
        log.warning("%s", note)
    if as_json:
        finish(as_json, {**document, "report": None if report is None else str(report)})


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can do, and the commands for what it cannot."""
    from edgeseg.doctor import examine, render

    findings = examine()
    if as_json:
        finish(as_json, findings.to_dict())
    else:
        print(render(findings), end="")


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything; default edgeseg-demo.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The whole road in minutes, on bundled microscopy pictures and without a GPU."""
    from edgeseg.demo import run_demo

    summary = run_demo(out)
    told = ("seconds", "peak_rss_mib", "val_mean_iou", "report", "recording")
    finish(as_json, summary if as_json else {key: summary[key] for key in told})


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


def _height_width(option: str, text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"{option} takes WIDTHxHEIGHT, e.g. 512x256, not {text!r}")
    return int(height), int(width)


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{option} takes {', '.join(allowed)}, not {value!r}")
    return value


def _one_source(camera: int | None, source: str | None) -> str:
    if (camera is None) == (source is None):
        raise UsageError(
            "one source is needed: --camera N or --source …",
            mend="edgeseg stream --camera 0, or edgeseg stream --source test:",
        )
    return source if source is not None else f"camera:{camera}"
