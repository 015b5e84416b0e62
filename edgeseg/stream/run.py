"""Run a stream into its sinks until it ends, and say how it went."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import Any

from edgeseg.latency import StageClock
from edgeseg.machine import peak_rss_mib
from edgeseg.stream.loop import Mode, Stream
from edgeseg.stream.reader import State
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Company, Sink, Source, StopStream
from edgeseg.stream.sinks.health import SinkReport
from edgeseg.stream.sinks.supervised import Supervised

STAGES = ("capture", "preprocess", "infer", "postprocess", "sink")


@dataclass(frozen=True)
class SourceReport:
    """How a source went. Values that no frame gave are None.

    Attributes:
        label: What it is, passwords masked.
        state: The last.
        reconnects: How often frames came again after a loss.
        frames: Results that reached the sinks.
        dropped: Frames that gave way to newer ones.
        bad_frames: Frames that it declared and that could not be read.
        frame_age_ms: From capture until the sinks are handed the result; p50, p95, p99.
    """

    label: str
    state: State
    reconnects: int
    frames: int
    dropped: int
    bad_frames: int
    frame_age_ms: dict[str, float | None]


@dataclass(frozen=True)
class StreamReport:
    """How a stream went. Values that no frame gave are None.

    Attributes:
        frames: Results that reached the sinks.
        dropped: Frames that gave way to newer ones.
        seconds: From the first frame being ready until the end.
        fps: ``frames / seconds``.
        inference_fps: 1000 / median of the ``infer`` stage: what the engine alone would do.
        frame_age_ms: From capture until the sinks are handed the result; p50, p95, p99.
        stages_ms: p50 and p99 of each stage. ``capture`` holds the wait for the camera,
            ``postprocess`` the overlay if a sink wants it, else the label map at frame size;
            without sinks there is none. Where ``frames_on_gpu``, ``preprocess`` has no values:
            upload, preprocessing and laying the classes over the frame are in ``infer``, and
            ``postprocess`` is the writing on the overlay.
        peak_rss_mib: Most memory the process ever held.
        sources: The sources.
        mode: ``latency`` or ``throughput``.
        frames_on_gpu: Whether whole frames stayed on a GPU from upload to download.
        sinks: The outputs, as they stood when all were closed.
    """

    frames: int
    dropped: int
    seconds: float
    fps: float
    inference_fps: float | None
    frame_age_ms: dict[str, float | None]
    stages_ms: dict[str, dict[str, float | None]]
    peak_rss_mib: float
    sources: tuple[SourceReport, ...]
    mode: Mode
    frames_on_gpu: bool = False
    sinks: tuple[SinkReport, ...] = ()

    @property
    def failed(self) -> list[SinkReport]:
        """Outputs that did not work at the end."""
        return [sink for sink in self.sinks if sink.state == "failed"]

    @property
    def incomplete(self) -> list[SinkReport]:
        """Outputs that lack a result or more, whether or not they worked again."""
        return [sink for sink in self.sinks if sink.lost or sink.state == "failed"]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it, under the same names."""
        sources = [asdict(source) for source in self.sources]
        return asdict(self) | {"sources": sources, "sinks": [asdict(sink) for sink in self.sinks]}


def run(stream: Stream, sinks: Sequence[Sink] = ()) -> StreamReport:
    """Open ``stream``, hand each result to the sinks in order, and report.

    SIGINT, SIGTERM and SIGHUP end it cleanly when it is called in the main thread. A sink that
    raises is tried again or switched off, as its ``retry`` says, with one line in the log, and
    the others go on, unless it is ``essential``.

    Raises:
        EdgesegError: As opening and iterating ``stream`` and opening the sinks do. Sinks that
            were opened are closed.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(stop_on_signals(stream.stop))
        stack.enter_context(stream)
        stage = stack.enter_context(contextlib.closing(_SinkStage(stream, sinks)))
        for result in stream.ticks():
            if result is None:
                stage.idle()
            else:
                stage.take(result)
        report = _report(stream)
    return replace(report, sinks=tuple(stage.reports()))


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on SIGINT, SIGTERM and SIGHUP instead of dying; a second one is not caught.

    A SIGHUP that is ignored, as below ``nohup``, stays so. Does nothing outside the main thread,
    where Python allows no signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _SinkStage:
    """The sinks, each of which looks after its own errors."""

    def __init__(self, stream: Stream, sinks: Sequence[Sink]) -> None:
        self._stream = stream
        self._clock: StageClock = stream.clock
        self._sinks: list[Sink] = []
        company = Company(stream.options.persistent, self.reports)
        try:
            for sink in sinks:
                each = sink if sink.supervised else Supervised(sink)
                each.prepare(company)
                each.open(stream.sources)
                self._sinks.append(each)
            stream.want_overlays(any(sink.shows_overlay for sink in self._sinks))
        except BaseException:
            self.close()
            raise

    def take(self, result: StreamResult) -> None:
        overlays = any(sink.shows_overlay for sink in self._sinks)
        self._stream.want_overlays(overlays)  # a window may change its mind
        if self._sinks:
            with self._clock.measure("postprocess"):
                _ = result.overlay() if overlays else result.mask()
        age = (time.monotonic() - result.captured_at) * 1000
        self._clock.add("age", age)
        self._clock.add(_age_of(self._stream.sources[result.camera]), age)
        with self._clock.measure("sink"):
            self._tell(lambda sink: sink.write(result))

    def idle(self) -> None:
        self._tell(lambda sink: sink.idle())

    def reports(self) -> list[SinkReport]:
        return [report for sink in tuple(self._sinks) for report in sink.reports()]

    def _tell(self, what: Callable[[Sink], None]) -> None:
        for sink in self._sinks:
            try:
                what(sink)
            except StopStream:
                self._stream.stop()

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


def _report(stream: Stream) -> StreamReport:
    seconds = stream.seconds
    stages = {stage: _points(stream.clock, stage, (50, 99)) for stage in STAGES}
    infer = stages["infer"]["p50"]
    return StreamReport(
        frames=stream.frames,
        dropped=stream.dropped,
        seconds=seconds,
        fps=stream.frames / seconds if seconds > 0 else 0.0,
        inference_fps=1000 / infer if infer else None,
        frame_age_ms=_points(stream.clock, "age", (50, 95, 99)),
        stages_ms=stages,
        peak_rss_mib=round(peak_rss_mib(), 1),
        sources=tuple(_source_report(stream.clock, source) for source in stream.sources),
        mode=stream.mode,
        frames_on_gpu=stream.on_gpu,
    )


def _source_report(clock: StageClock, source: Source) -> SourceReport:
    return SourceReport(
        label=source.label,
        state=source.state,
        reconnects=source.reconnects,
        frames=source.taken,
        dropped=source.dropped,
        bad_frames=source.bad_frames,
        frame_age_ms=_points(clock, _age_of(source), (50, 95, 99)),
    )


def _age_of(source: Source) -> str:
    """The stage under which the ages of its frames are kept."""
    return f"age of {source.index}"


def _points(clock: StageClock, stage: str, points: tuple[int, ...]) -> dict[str, float | None]:
    if not clock.count(stage):
        return {f"p{point}": None for point in points}
    return dict(clock.percentiles(stage, points))
