"""Run a stream into its sinks until it ends, and report statistics."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from types import FrameType
from typing import Any

from edgeseg.machine import peak_rss_mib
from edgeseg.options.streaming import Mode
from edgeseg.stream.arrangement import Arrangement
from edgeseg.stream.latency import StageClock
from edgeseg.stream.loop import Stream
from edgeseg.stream.reader import Reader
from edgeseg.stream.result import State, StreamResult
from edgeseg.stream.sinks.base import Sink, SinkContext, SourceStatus, StopStream
from edgeseg.stream.sinks.health import SinkReport
from edgeseg.stream.sinks.supervised import supervised
from edgeseg.stream.smoothing import Steadiness

STAGES = ("capture", "preprocess", "infer", "smooth", "postprocess", "sink")


@dataclass(frozen=True)
class SourceReport:
    """Statistics of one source. Values without any measurement are None.

    Attributes:
        label: Name of the source, passwords masked.
        state: Final state.
        reconnects: Number of successful reconnections.
        frames: Number of results that reached the sinks.
        dropped: Number of frames dropped in favour of newer ones.
        bad_frames: Number of frames that could not be read.
        frame_age_ms: Time from capture until the sinks receive the result; p50, p95, p99.
        flicker: Share of pixels that flickered in the label maps, after smoothing, see
            :class:`~edgeseg.stream.smoothing.Flicker`.
        network_flicker: Share of those in the label maps of the network, before smoothing.
        decoder: Device that decoded the video, or ``cpu``; None if PyAV did not decode it.
    """

    label: str
    state: State
    reconnects: int
    frames: int
    dropped: int
    bad_frames: int
    frame_age_ms: dict[str, float | None]
    flicker: float | None
    network_flicker: float | None
    decoder: str | None


@dataclass(frozen=True)
class StreamReport:
    """Statistics of a stream. Values without any measurement are None.

    Attributes:
        frames: Number of results that reached the sinks.
        dropped: Number of frames dropped in favour of newer ones.
        seconds: Time from the first frame being ready until the end.
        fps: ``frames / seconds``.
        inference_fps: 1000 / median of the ``infer`` stage: the rate of the engine alone.
        frame_age_ms: Time from capture until the sinks receive the result; p50, p95, p99.
        stages_ms: p50 and p99 of each stage. ``capture`` includes waiting for the camera.
            ``smooth`` is there with the option of that name.
            ``postprocess`` is the overlay if a sink uses it, otherwise the label map at frame
            size; it is absent without sinks. With ``frames_on_gpu``, ``preprocess`` has no
            values: upload, preprocessing and drawing the classes are part of ``infer``, and
            ``postprocess`` is drawing text on the overlay.
        peak_rss_mib: Peak resident memory of the process.
        sources: Statistics of each source.
        mode: ``latency`` or ``throughput``.
        lanes: Engines that worked side by side at the end, and the rates that decided it.
        frames_on_gpu: Whether whole frames stayed on a GPU from upload to download.
        sinks: Status of each output after it was closed.
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
    lanes: Arrangement
    frames_on_gpu: bool = False
    sinks: tuple[SinkReport, ...] = ()

    @property
    def failed(self) -> list[SinkReport]:
        """Outputs that were failing at the end."""
        return [sink for sink in self.sinks if sink.state == "failed"]

    @property
    def incomplete(self) -> list[SinkReport]:
        """Outputs that lost at least one result, even if they recovered."""
        return [sink for sink in self.sinks if sink.lost or sink.state == "failed"]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that can be serialised as JSON, with the same names."""
        sources = [asdict(source) for source in self.sources]
        return asdict(self) | {"sources": sources, "sinks": [asdict(sink) for sink in self.sinks]}


def run(stream: Stream, sinks: Sequence[Sink] = ()) -> StreamReport:
    """Open ``stream``, pass each result to the sinks in order, and return a report.

    In the main thread, SIGINT, SIGTERM and SIGHUP end the run cleanly. A sink that raises is
    logged and, depending on its ``retry``, retried or switched off while the others continue,
    unless it is ``essential``.

    Raises:
        EdgesegError: Opening or iterating ``stream``, or opening a sink, failed. Sinks that
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

    A SIGHUP that is ignored, as under ``nohup``, stays ignored. Does nothing outside the main
    thread, where Python allows no signal handlers.
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
    """Passes results to the sinks, each of which handles its own errors."""

    def __init__(self, stream: Stream, sinks: Sequence[Sink]) -> None:
        self._stream = stream
        self._clock: StageClock = stream.clock
        self._sinks: list[Sink] = []
        context = SinkContext(stream.options.keep_trying, self.reports)
        try:
            for sink in sinks:
                each = supervised(sink)
                each.prepare(context)
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
            with result.timed("postprocess"):
                _ = result.overlay() if overlays else result.mask()
        age = (time.monotonic() - result.captured_at) * 1000
        self._clock.add("age", age)
        self._clock.add(_age_of(self._stream.sources[result.camera]), age)
        with result.timed("sink"):
            self._each_sink(lambda sink: sink.write(result))

    def idle(self) -> None:
        self._each_sink(lambda sink: sink.idle())

    def reports(self) -> list[SinkReport]:
        return [report for sink in tuple(self._sinks) for report in sink.reports()]

    def _each_sink(self, what: Callable[[Sink], None]) -> None:
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
    if stream.options.smooth is None:
        del stages["smooth"]
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
        sources=tuple(map(_source_report, repeat(stream.clock), stream.sources, stream.steadiness)),
        mode=stream.mode,
        lanes=stream.arrangement,
        frames_on_gpu=stream.on_gpu,
    )


def _source_report(clock: StageClock, source: Reader, steadiness: Steadiness) -> SourceReport:
    return SourceReport(
        label=source.label,
        state=source.state,
        reconnects=source.reconnects,
        frames=source.taken,
        dropped=source.dropped,
        bad_frames=source.bad_frames,
        frame_age_ms=_points(clock, _age_of(source), (50, 95, 99)),
        flicker=steadiness.masks.share,
        network_flicker=steadiness.network.share,
        decoder=source.decoder,
    )


def _age_of(source: SourceStatus) -> str:
    """Name of the stage that records the age of the source's frames."""
    return f"age of {source.index}"


def _points(clock: StageClock, stage: str, points: tuple[int, ...]) -> dict[str, float | None]:
    if not clock.count(stage):
        return {f"p{point}": None for point in points}
    return dict(clock.percentiles(stage, points))
