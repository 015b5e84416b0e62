"""Running into sinks: the report, and sinks that fail one by one."""

import json
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edgeseg.engines.base import Engine
from edgeseg.errors import OpenFailed, SourceLost, UsageError
from edgeseg.stream import (
    Masks,
    Recording,
    Sink,
    SourceStatus,
    StopStream,
    Stream,
    StreamOptions,
    StreamResult,
    run,
)
from edgeseg.stream.run import stop_on_signals


class Listener(Sink):
    """A sink that remembers, and raises ``error`` at the frame ``at``."""

    def __init__(
        self, at: int = -1, error: Exception | None = None, shows_overlay: bool = False
    ) -> None:
        self.shows_overlay = shows_overlay
        self.sources: Sequence[SourceStatus] = ()
        self.taken: list[int] = []
        self.drawn: list[bool] = []
        self.closed = 0
        self._at = at
        self._error = error

    def __str__(self) -> str:
        return "the listener"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        self.sources = sources

    def write(self, result: StreamResult) -> None:
        if result.index == self._at and self._error:
            raise self._error
        self.taken.append(result.index)
        self.drawn.append("_overlay" in vars(result))

    def close(self) -> None:
        self.closed += 1


def test_report_has_the_documented_keys_and_survives_json(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    report = run(Stream(make_video(20), engine)).to_dict()
    assert list(report) == [
        *("frames", "dropped", "seconds", "fps", "inference_fps", "frame_age_ms"),
        *("stages_ms", "peak_rss_mib", "sources", "mode", "lanes", "frames_on_gpu", "sinks"),
    ]
    assert list(report["frame_age_ms"]) == ["p50", "p95", "p99"]
    assert list(report["stages_ms"]) == ["capture", "preprocess", "infer", "postprocess", "sink"]
    assert all(list(points) == ["p50", "p99"] for points in report["stages_ms"].values())
    (source,) = report["sources"]
    assert list(source) == [
        *("label", "state", "reconnects", "frames", "dropped", "bad_frames", "frame_age_ms"),
        *("flicker", "network_flicker", "decoder"),
    ]
    assert json.loads(json.dumps(report)) == report


def test_what_no_sink_needs_is_not_made(make_video: Callable[..., Path], engine: Engine) -> None:
    assert run(Stream(make_video(5), engine)).stages_ms["postprocess"]["p50"] is None
    assert run(Stream(make_video(5), engine), [Listener()]).stages_ms["postprocess"]["p50"]


def test_report_figures_agree_with_each_other(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    listener = Listener()
    report = run(Stream(make_video(20), engine), [listener])
    assert report.frames == len(listener.taken) == 20
    assert report.fps == pytest.approx(20 / report.seconds)
    assert report.stages_ms["infer"]["p50"] is not None
    assert report.inference_fps == pytest.approx(1000 / report.stages_ms["infer"]["p50"])
    ages = [report.frame_age_ms[point] for point in ("p50", "p95", "p99")]
    assert all(age is not None and age > 0 for age in ages)
    assert report.peak_rss_mib > 10
    assert (report.sources[0].state, report.dropped) == ("ended", 0)


def test_report_of_no_frame_at_all(engine: Engine) -> None:
    stream = Stream("test:64x48", engine)
    stream.stop()
    report = run(stream)
    assert (report.frames, report.fps, report.inference_fps) == (0, 0.0, None)
    assert report.frame_age_ms == {"p50": None, "p95": None, "p99": None}


def test_sinks_learn_of_the_source_and_are_closed(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    path = make_video(3)
    listener = Listener()
    run(Stream(path, engine), [listener])
    (source,) = listener.sources
    assert (source.index, source.label, source.fps, source.realtime) == (0, str(path), 25.0, False)
    assert (source.state, source.taken) == ("ended", 3)
    assert listener.closed == 1


@pytest.mark.parametrize("wanted", [False, True])
def test_overlay_is_drawn_before_only_if_wanted(wanted: bool, engine: Engine) -> None:
    listener = Listener(shows_overlay=wanted)
    run(Stream("test:64x48?frames=3", engine, StreamOptions(realtime=False)), [listener])
    assert listener.drawn == [wanted] * 3


def test_a_sink_that_raises_is_off_and_the_others_go_on(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    failing, other = Listener(at=2, error=OSError("no more")), Listener()
    report = run(
        Stream("test:64x48?frames=6", engine, StreamOptions(realtime=False)), [failing, other]
    )
    assert failing.taken == [0, 1]
    assert failing.closed == 1
    assert other.taken == list(range(6))
    assert report.frames == 6
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert error.getMessage() == "the listener failed and is off: no more"


def test_a_sink_may_stop_the_stream(engine: Engine) -> None:
    closed_by_user, other = Listener(at=2, error=StopStream()), Listener()
    report = run(
        Stream("test:64x48", engine, StreamOptions(realtime=False)), [closed_by_user, other]
    )
    assert report.frames == 3
    assert other.taken == [0, 1, 2], "the others still get the frame that was on its way"
    assert other.closed == closed_by_user.closed == 1


def test_a_sink_that_cannot_open_ends_the_run_and_closes_the_others(
    engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    listener = Listener()
    with pytest.raises(UsageError):
        run(Stream("test:64x48", engine), [listener, Masks(tmp_path / "file" / "masks")])
    assert (listener.taken, listener.closed) == ([], 1)


def test_no_sink_is_opened_when_the_source_is_not_there(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(OpenFailed):
        run(Stream(tmp_path / "gone.mkv", engine), [Recording(tmp_path / "a.mkv")])
    assert list(tmp_path.iterdir()) == []


def test_sinks_are_closed_when_the_source_is_lost(
    truncated: Path, engine: Engine, tmp_path: Path, play: Callable[..., list[object]]
) -> None:
    listener = Listener()
    with pytest.raises(SourceLost):
        run(
            Stream(truncated, engine, StreamOptions(strict=True)),
            [listener, Recording(tmp_path / "a.mkv")],
        )
    assert listener.closed == 1
    assert len(play(tmp_path / "a.mkv")) == len(listener.taken) > 0


def test_a_sink_that_raises_on_closing_is_said(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(Listener):
        def close(self) -> None:
            raise OSError("not now")

    after = Listener()
    run(Stream("test:64x48?frames=1", engine, StreamOptions(realtime=False)), [Stubborn(), after])
    assert "could not be closed: not now" in caplog.text
    assert after.closed == 1


def test_signals_stop_and_the_handlers_come_back(not_under_nohup: None) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    stopped: list[int] = []
    with stop_on_signals(lambda: stopped.append(1)):
        signal.raise_signal(signal.SIGTERM)
        assert stopped == [1]
        assert [signal.getsignal(number) for number in numbers] == before
    with stop_on_signals(lambda: stopped.append(2)):
        signal.raise_signal(signal.SIGHUP)
    assert stopped == [1, 2]
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_run_outside_the_main_thread_leaves_signals_alone(engine: Engine) -> None:
    reports = []
    thread = threading.Thread(
        target=lambda: reports.append(
            run(Stream("test:64x48?frames=2", engine, StreamOptions(realtime=False)))
        )
    )
    thread.start()
    thread.join(30)
    assert [report.frames for report in reports] == [2]
