"""The loop on real sources and a real engine whose right answer is known."""

import functools
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.engines.base import Capabilities, Engine
from edgeseg.errors import InferenceError, OpenFailed, UsageError
from edgeseg.stream import Stream, StreamOptions, StreamResult

ALIVE_S = 30.0


def truth(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What ``bright_network`` must say of a frame, at the frame's own size."""
    return (frame.astype(float).mean(axis=2) > 127.5).astype(np.uint8)


def test_every_frame_of_a_file_with_its_labels(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    with Stream(make_video(30), engine) as stream:
        results = list(stream)
    assert [result.index for result in results] == list(range(30))
    for result in results:
        assert result.labels.dtype == np.uint8
        assert result.labels.shape == (48, 64)
        assert np.array_equal(result.mask(), truth(result.frame))
    assert (stream.frames, stream.dropped, stream.sources[0].bad_frames) == (30, 0, 0)
    assert (stream.sources[0].state, stream.sources[0].reconnects) == ("ended", 0)


def test_mask_has_the_size_of_the_frame_and_overlay_is_drawn_on_a_copy(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    with Stream(make_video(1, size=(320, 240)), engine) as stream:
        (result,) = stream
    before = result.frame.copy()
    assert result.mask().shape == (240, 320)
    assert (result.mask() == truth(result.frame)).mean() > 0.95
    picture = result.overlay()
    assert picture.shape == result.frame.shape
    assert not np.array_equal(picture, before)
    assert np.array_equal(result.frame, before)
    assert result.mask() is result.mask()
    assert result.overlay() is picture


def test_opacity_reaches_the_overlay(make_video: Callable[..., Path], engine: Engine) -> None:
    pictures = []
    for opacity in (0.0, 1.0):
        with Stream(
            make_video(1, size=(320, 240)), engine, StreamOptions(opacity=opacity)
        ) as stream:
            pictures += [result.overlay() for result in stream]
    clear, covered = pictures
    assert (clear[200, 300] > 240).all(), "white, as filmed"
    assert (covered[200, 300] < 240).any(), "in the colour of the class"


def test_results_keep_their_labels_when_the_engine_reuses_its_buffer(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    class Reusing(Engine):
        def __init__(self, inner: Engine) -> None:
            self.card, self.path, self.capabilities = inner.card, inner.path, inner.capabilities
            self._inner, self._buffer = inner, np.empty((1, 48, 64), np.uint8)

        def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
            self._buffer[...] = self._inner.infer(batch)
            return self._buffer

        def close(self) -> None: ...

    with Stream(make_video(10), Reusing(engine)) as stream:
        results = list(stream)
    assert all(np.array_equal(result.mask(), truth(result.frame)) for result in results)


def test_times_are_there_and_add_up(make_video: Callable[..., Path], engine: Engine) -> None:
    before = time.monotonic()
    with Stream(make_video(5), engine) as stream:
        results = list(stream)
    for result in results:
        assert set(result.stages_ms) == {"capture", "preprocess", "infer"}
        assert before <= result.captured_at <= time.monotonic()
        assert result.age_ms >= result.stages_ms["preprocess"] + result.stages_ms["infer"]
    assert [stream.clock.count(stage) for stage in stream.clock.stages] == [5, 5, 5]


def test_frames_that_were_handed_out_are_freed(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    frames: list[weakref.ref[StreamResult]] = []
    with Stream(make_video(30), engine) as stream:
        for result in stream:
            frames.append(weakref.ref(result))
        del result
        alive = sum(frame() is not None for frame in frames)
    assert len(frames) == 30
    assert alive < 5, "a thread may still hold its last one"


def test_leaving_early_ends_the_reader(engine: Engine) -> None:
    with Stream("test:64x48", engine, StreamOptions(realtime=False)) as stream:
        next(iter(stream))
    assert "edgeseg reader of test:64x48" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("wrong", ["model.onnx", [None], [3]])
def test_what_is_no_engine_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="expected an engine, found") as caught:
        Stream("test:", wrong)
    assert "edgeseg.load" in str(caught.value.hint)


def test_max_frames(engine: Engine) -> None:
    with Stream("test:64x48", engine, StreamOptions(realtime=False, max_frames=7)) as stream:
        assert len(list(stream)) == 7


def test_duration(engine: Engine) -> None:
    with Stream("test:64x48@50", engine, StreamOptions(duration=0.2)) as stream:
        assert len(list(stream)) >= 1
        assert stream.seconds >= 0.2


def test_stop_from_another_thread_ends_the_iteration(engine: Engine) -> None:
    with Stream("test:64x48", engine) as stream:
        for result in stream:
            if result.index == 0:
                threading.Thread(target=stream.stop).start()
    assert stream.sources[0].state == "ok"


def test_stop_before_the_start_yields_nothing(engine: Engine) -> None:
    stream = Stream("test:64x48", engine)
    stream.stop()
    assert list(stream) == []


def test_pictures_of_different_sizes(tmp_path: Path, engine: Engine) -> None:
    sizes = [(40, 60), (120, 20), (33, 17)]
    for index, (height, width) in enumerate(sizes):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[: height // 2] = 255
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame)
    with Stream(tmp_path, engine) as stream:
        results = list(stream)
    assert [result.mask().shape for result in results] == sizes
    assert all((result.mask() == truth(result.frame)).mean() > 0.9 for result in results)


class Gated(Engine):
    """A slow network: each inference waits until the test lets it."""

    runtime = "test"

    def __init__(self, inner: Engine, let: Callable[[int], None]) -> None:
        self.card, self.path = inner.card, inner.path
        self.calls = 0
        self._let = let

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        self._let(self.calls)
        self.calls += 1
        return (batch.mean(axis=1) > 0.5).astype(np.uint8)

    def close(self) -> None: ...


def test_a_slow_engine_gets_the_newest_frame_and_drops_are_counted(engine: Engine) -> None:
    stream: Stream

    def wait_for_drops(call: int) -> None:
        deadline = time.monotonic() + ALIVE_S
        before = stream.dropped
        while call >= 1 and stream.dropped < before + 20:  # one call is warm-up
            assert time.monotonic() < deadline
            threading.Event().wait(0.005)

    stream = Stream("test:64x48@200", Gated(engine, wait_for_drops), StreamOptions(max_frames=3))
    with stream:
        indices = [result.index for result in stream]
    assert len(indices) == 3
    assert indices[1] - indices[0] > 20
    assert indices[2] - indices[1] > 20
    assert stream.dropped >= 60


def test_frames_dropped_while_the_engine_warms_up_do_not_count(engine: Engine) -> None:
    stream: Stream

    def wait_for_drops(call: int) -> None:
        deadline = time.monotonic() + ALIVE_S
        while call < 1 and stream.dropped < 50:
            assert time.monotonic() < deadline
            threading.Event().wait(0.005)

    stream = Stream("test:64x48@200", Gated(engine, wait_for_drops), StreamOptions(max_frames=1))
    with stream:
        dropped = stream.dropped
        assert len(list(stream)) == 1
    assert dropped < 50
    assert stream.clock.count("infer") == 1


def test_a_source_that_is_not_there_raises_on_entry(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(OpenFailed, match="no such file"):
        Stream(tmp_path / "gone.mkv", engine).__enter__()


def test_an_engine_that_fails_closes_the_reader(engine: Engine) -> None:
    def fail(call: int) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Stream("test:64x48", Gated(engine, fail)).__enter__()
    assert not any("test:64x48" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_frames": 0}, "max_frames"),
        ({"duration": 0}, "duration"),
        ({"duration": float("nan")}, "duration"),
        ({"opacity": 1.5}, "opacity"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], said: str, engine: Engine) -> None:
    with pytest.raises(UsageError, match=said):
        Stream("test:", engine, StreamOptions(**arguments))


def camera_of(results: list[StreamResult], camera: int) -> list[int]:
    return [result.index for result in results if result.camera == camera]


@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_side_by_side_give_each_frame_once_in_order_with_its_own_labels(
    lanes: int, make_video: Callable[..., Path], engine: Engine
) -> None:
    # Lanes of different speed, so that results would come out of order.
    engines = [
        Gated(engine, functools.partial(lambda delay, _: time.sleep(delay), 0.002 * number))
        for number in range(lanes)
    ]
    with Stream(make_video(30), engines) as stream:
        assert stream.mode == "throughput"
        results = list(stream)
    assert [result.index for result in results] == list(range(30))
    for result in results:
        np.testing.assert_array_equal(result.mask(), truth(result.frame))


def test_latency_takes_the_newest_frame_when_it_is_asked(engine: Engine) -> None:
    taken: list[int] = []
    counting = Gated(engine, taken.append)
    with Stream("test:64x48@200", counting) as stream:
        assert stream.mode == "latency"
        before = len(taken)
        next(iter(stream))
        assert len(taken) == before + 1, "nothing is worked out ahead"


def test_throughput_works_ahead_within_bounds(engine: Engine) -> None:
    ahead = threading.Event()
    calls = []

    def count(call: int) -> None:
        calls.append(call)
        if len(calls) == 2:
            ahead.set()

    options = StreamOptions(realtime=False, mode="throughput")
    with Stream("test:64x48", Gated(engine, count), options) as stream:
        results = iter(stream)
        next(results)
        assert ahead.wait(ALIVE_S), "it goes on while the caller is busy"
        assert len(calls) <= 3, "one handed out, two ahead"
        stream.stop()
        list(results)


def test_several_sources_share_an_engine_and_take_turns(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    paths = [make_video(length, name=f"{length}.mkv") for length in (3, 10, 6)]
    with Stream(paths, engine) as stream:
        results = list(stream)
    assert [camera_of(results, camera) for camera in range(3)] == [
        list(range(3)),
        list(range(10)),
        list(range(6)),
    ]
    assert {result.source for result in results} == set(map(str, paths))
    assert [source.taken for source in stream.sources] == [3, 10, 6]
    assert all(source.state == "ended" for source in stream.sources)


class Batches(Gated):
    """An engine that notes the sizes of its batches, and lets the queues of ``stream`` fill once.

    On a loaded machine the engine would else be faster than the readers, and find one frame.
    """

    stream: Stream | None = None

    def __init__(self, engine: Engine, batch: int | None = None) -> None:
        super().__init__(engine, self._wait_for_frames)
        self.capabilities = Capabilities(batch)
        self.sizes: list[int] = []

    def _wait_for_frames(self, call: int) -> None:
        if self.stream is None or call != 0:
            return
        deadline = time.monotonic() + ALIVE_S
        while any(reader.slot.empty for reader in self.stream._readers):
            assert time.monotonic() < deadline
            threading.Event().wait(0.005)

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        self.sizes.append(len(batch))
        return super()._infer(batch)


def test_frames_of_several_sources_go_through_in_batches(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    paths = [make_video(8, name=f"{number}.mkv") for number in range(3)]
    batches = Batches(engine)
    batches.stream = stream = Stream(paths, batches, StreamOptions(mode="latency"))
    results = list(stream)
    assert max(batches.sizes) == 3
    for result in results:
        np.testing.assert_array_equal(result.mask(), truth(result.frame))
    assert [camera_of(results, camera) for camera in range(3)] == [list(range(8))] * 3


def test_a_batch_holds_what_the_engine_takes(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    paths = [make_video(4, name=f"{number}.mkv") for number in range(3)]
    batches = Batches(engine)
    batches.capabilities = Capabilities(largest_batch=2)
    batches.stream = stream = Stream(paths, batches)
    results = list(stream)
    assert len(results) == 12
    assert max(batches.sizes) == 2


def test_an_engine_of_fixed_batches_is_filled_up_and_it_is_said(
    make_video: Callable[..., Path], engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    fours = Batches(engine, batch=4)
    results = list(Stream(make_video(5), fours))
    assert set(fours.sizes) == {4}
    assert [result.index for result in results] == list(range(5))
    for result in results:
        np.testing.assert_array_equal(result.mask(), truth(result.frame))
    assert "batches of 4" in caplog.text


def test_a_file_that_is_missing_ends_a_stream_of_several(
    make_video: Callable[..., Path], engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(OpenFailed, match="no such file"):
        list(Stream([make_video(3), tmp_path / "none.mkv"], engine))


def test_an_engine_that_fails_in_its_thread_is_raised_to_the_caller(
    make_video: Callable[..., Path], engine: Engine
) -> None:
    def fail(call: int) -> None:
        if call == 3:
            raise InferenceError("out of order")

    results: list[StreamResult] = []
    with pytest.raises(InferenceError, match="out of order"):
        results.extend(Stream(make_video(10), Gated(engine, fail)))
    assert [result.index for result in results] == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if "lane" in thread.name]


def test_pictures_keep_their_names(tmp_path: Path, engine: Engine) -> None:
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((48, 64, 3), np.uint8))
    assert [result.name for result in Stream(tmp_path, engine)] == ["a.png", "b.png"]


def test_a_second_in_which_nothing_comes_has_ticks(engine: Engine) -> None:
    with Stream("test:64x48@2", engine) as stream:
        ticks = stream.ticks()
        seen = [next(ticks) is None for _ in range(4)]
    assert True in seen
