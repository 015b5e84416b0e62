"""The validated parts of a report; each is optional, and its section appears with it.

Figures show a row for each engine of a benchmark, numbered and coloured (:func:`entries`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from edgeseg.artifacts.documents import first_problem, plural
from edgeseg.benchmark.budget import Recommendation, focus
from edgeseg.benchmark.document import BenchReport, Run
from edgeseg.data.panels import WorstPictures
from edgeseg.errors import CorruptArtifact
from edgeseg.machine import Machine
from edgeseg.report.svg import COLOURS

Percentiles = dict[str, float | None]
Part = TypeVar("Part")

RUNTIMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT-RTX",
    "torch": "PyTorch",
}


@dataclass(frozen=True)
class Picture:
    """A picture for the report.

    Attributes:
        title: One line below the picture, before the caption.
        caption: Description of what the picture shows.
        data: The bytes of a PNG or JPEG file.
    """

    title: str
    caption: str
    data: bytes


class SourceSummary(BaseModel):
    """One source of a stream; its label holds no password."""

    model_config = ConfigDict(frozen=True)

    label: str
    state: str | None = None
    reconnects: int | None = None


class StreamSummary(BaseModel):
    """Output of ``edgeseg stream --json``; other keys are ignored."""

    model_config = ConfigDict(frozen=True)

    engine: str | None = None
    frames: int
    dropped: int = 0
    seconds: float
    fps: float
    inference_fps: float | None = None
    frame_age_ms: Percentiles = {}
    stages_ms: dict[str, Percentiles] = {}
    peak_rss_mib: float | None = None
    sources: tuple[SourceSummary, ...] = ()


class TrainingSummary(BaseModel):
    """Summary of a training run; other keys are ignored.

    ``history`` holds one mapping per epoch: its numbers are drawn, those named ``*loss*`` apart
    from those named ``*iou*`` or ``*accuracy*``. ``curves_png`` is shown where there
    is no history.
    """

    model_config = ConfigDict(frozen=True)

    arch: str | None = None
    dataset: str | None = None
    epochs: int | None = None
    seconds: float | None = None
    val_mean_iou: float | None = None
    history: tuple[dict[str, Any], ...] = ()
    curves_png: bytes | None = None


@dataclass(frozen=True)
class Contents:
    """The parts that one report shows."""

    title: str
    bench: BenchReport | None = None
    training: TrainingSummary | None = None
    stream: StreamSummary | None = None
    pictures: tuple[Picture, ...] = ()
    worst: WorstPictures | None = None
    recommendation: Recommendation | None = None
    machine: Machine | None = None
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Headline:
    """One figure for the top of the page: its name, value, unit, and what to compare it with."""

    name: str
    value: str
    unit: str
    context: str


def read_part(kind: type[Part], value: Mapping[str, Any] | None, origin: str) -> Part | None:
    """Validate one part of the report.

    Raises:
        CorruptArtifact: It lacks a key, or a value has the wrong type.
    """
    if value is None:
        return None
    try:
        return TypeAdapter(kind).validate_python(dict(value))
    except ValidationError as error:
        raise CorruptArtifact(f"{origin}: {first_problem(error)}") from error


def label(run: Run) -> str:
    """``INT8 · ONNX Runtime``, and where floating layers compute in something else, that too.

    ``FP16 · OpenVINO (computes in FP32)`` has FP16's weights and not its speed.
    """
    text = f"{run.precision.upper()} · {RUNTIMES.get(run.runtime, run.runtime)}"
    expected = "fp32" if run.precision == "int8" else run.precision
    if run.computes_in in (None, expected):
        return text
    name = "bf16" if run.computes_in == "bf16" else run.computes_in.upper()
    return f"{text} (computes in {name})"


def labels(runs: tuple[Run, ...]) -> list[str]:
    """A label per row: what distinguishes it from the others, and no more.

    Precision and runtime; the network where there are several; the file where two would still
    read the same; batch size and threads where they vary.
    """
    several = len({run.name for run in runs}) > 1
    plain = [f"{run.name} · {label(run)}" if several else label(run) for run in runs]
    engines = [
        {run.engine for run, other in zip(runs, plain, strict=True) if other == text}
        for text in plain
    ]
    named = [
        text if len(same) == 1 else f"{text} · {Path(run.engine).name}"
        for text, same, run in zip(plain, engines, runs, strict=True)
    ]
    return [f"{text}{_settings(run, runs)}" for text, run in zip(named, runs, strict=True)]


def _settings(run: Run, runs: tuple[Run, ...]) -> str:
    """`` · batch 4 · 2 threads`` for an engine that has rows with other values."""
    same = [other for other in runs if other.engine == run.engine]
    batch = f" · batch {run.batch}" if len({other.batch for other in same}) > 1 else ""
    threads = "default threads" if run.threads is None else plural(run.threads, "thread")
    return batch + (f" · {threads}" if len({other.threads for other in same}) > 1 else "")


def headlines(contents: Contents) -> list[Headline]:
    """The figures to put on top, most important first."""
    found: list[Headline] = []
    if contents.bench:
        found += _bench_headlines(contents.bench, focus(contents.bench, contents.recommendation))
    if contents.training and contents.training.val_mean_iou is not None and not found:
        found.append(
            Headline("Validation mean IoU", f"{100 * contents.training.val_mean_iou:.1f}", "%", "")
        )
    if contents.stream:
        found += _stream_headlines(contents.stream)
    return found


def standing_out(bench: BenchReport) -> list[tuple[str, tuple[str, ...]]]:
    """Warnings to show at the top: that a run was noisy or cut short, and why."""
    found: list[tuple[str, tuple[str, ...]]] = []
    if bench.noisy:
        found.append(("This run was noisy: differences may be due to chance.", bench.why))
    if bench.cut_short:
        found.append(("This run was interrupted; the report shows what was measured before.", ()))
    return found


def other_notes(bench: BenchReport) -> list[str]:
    """The notes that the banner does not show already."""
    shown = {text for why in bench.why for text in (why, f"Noisy: {why}")}
    return [note for note in bench.notes if note not in shown]


def _bench_headlines(bench: BenchReport, best: Run | None) -> list[Headline]:
    if best is None or best.latency_ms is None:
        return []
    base = next((run for run in bench.runs if run.engine == bench.reference), None)
    speed = "" if best is base or not best.speedup else f", {best.speedup:.2g}× FP32"
    several = len({run.name for run in bench.runs}) > 1
    name = f"{best.name} · {label(best)}" if several else label(best)
    found = [Headline("Latency, median", f"{best.latency_ms['p50']:.3g}", "ms", name + speed)]
    if best.mean_iou is not None:
        lost = "" if best is base or best.drop is None else _against(best.drop)
        found.append(Headline("Mean IoU", f"{100 * best.mean_iou:.1f}", "%", lost))
    elif best.pixel_agreement is not None and best is not base:
        found.append(
            Headline("Agreement", f"{100 * best.pixel_agreement:.2f}", "%", "of pixels with FP32")
        )
    share = "" if best is base or not base else f"{best.bytes / base.bytes:.0%} of FP32"
    found.append(Headline("Size", f"{best.bytes / 2**20:.3g}", "MiB", share))
    if best.peak_rss_mib is not None:
        start = (best.cold_start_ms or {}).get("total")
        context = "" if start is None else f"first label map after {start / 1000:.2g} s"
        found.append(Headline("Memory, peak", f"{best.peak_rss_mib:.0f}", "MiB", context))
    return found


def _against(drop: float) -> str:
    points = round(100 * drop, 2)
    side = "below" if points > 0 else "above"
    return f"{abs(points):.2g} points {side} FP32" if points else "as FP32"


def not_run(bench: BenchReport) -> list[str]:
    """A sentence for each engine that is listed and not measured, without its folder."""
    sentences = []
    for run in bench.runs:
        if not run.runs_here:
            name = Path(run.engine).name
            reason = (run.reason or "it cannot run here").replace(run.engine, name).rstrip(".")
            sentences.append(f"{reason}." if name in reason else f"{name}: {reason}.")
    return sentences


def _stream_headlines(stream: StreamSummary) -> list[Headline]:
    found = [
        Headline(
            "Stream",
            f"{stream.fps:.3g}",
            "fps",
            f"{stream.dropped} of {plural(stream.frames + stream.dropped, 'frame')} dropped",
        )
    ]
    age = stream.frame_age_ms
    if (middle := age.get("p50")) is not None:
        tail = age.get("p99")
        context = "" if tail is None else f"99 % below {tail:.3g} ms"
        found.append(Headline("Frame age, median", f"{middle:.3g}", "ms", context))
    return found


@dataclass(frozen=True)
class Entry:
    """One engine in the figures.

    Attributes:
        number: Number from 1, shown beside its marks and in the key.
        colour: Colour of its marks; repeats after six engines, unlike the number.
    """

    number: int
    label: str
    run: Run
    colour: str


def entries(bench: BenchReport) -> list[Entry]:
    """One row per engine that ran: batch 1 where possible, the fastest number of threads."""
    timed = [run for run in bench.runs if run.latency_ms and run.latency_quantiles_ms]
    rows: dict[str, Run] = {}
    for run in sorted(timed, key=_plainness):
        rows.setdefault(run.engine, run)
    shown = [run for run in timed if rows[run.engine] is run]
    return [
        Entry(place + 1, shortened(label, 60), run, COLOURS[place % len(COLOURS)])
        for place, (label, run) in enumerate(zip(labels(tuple(shown)), shown, strict=True))
    ]


def _plainness(run: Run) -> tuple[int, float]:
    return run.batch or 1, (run.latency_ms or {})["p50"]


def shortened(text: str, limit: int) -> str:
    """Cut a name that leaves no room for the plot."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
