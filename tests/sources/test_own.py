"""Sources of one's own: what is a frame, what is a time, and what is said of anything else."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgeseg.errors import AuthFailed, OpenFailed, SourceError, UsageError
from edgeseg.sources.capture import open_frames
from edgeseg.sources.own import OwnFrames, from_frames

PICTURE = np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)


def opened(*items: Any, live: bool = False) -> OwnFrames:
    return OwnFrames(from_frames(lambda: items, live=live))


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (PICTURE, PICTURE),
        (PICTURE[:, ::-1], PICTURE[:, ::-1]),
        (PICTURE[..., 0], np.repeat(PICTURE[..., :1], 3, 2)),
        (PICTURE[..., :1], np.repeat(PICTURE[..., :1], 3, 2)),
        (np.dstack([PICTURE, PICTURE[..., 0]]), PICTURE),
    ],
    ids=["BGR", "a view", "grey", "one channel", "BGRx"],
)
def test_what_is_a_frame(frame: Any, expected: Any) -> None:
    frames = opened(frame, (frame, 5.0))
    for _ in range(2):
        read = frames.read()
        assert read is not None
        np.testing.assert_array_equal(read, expected)
        assert read.dtype == np.uint8
        assert read.flags.c_contiguous
        assert not np.may_share_memory(read, frame)  # its owner may use the buffer again
    assert frames.read() is None


@pytest.mark.parametrize(
    ("frame", "found", "hint"),
    [
        (None, "found NoneType", "yield a NumPy array"),
        ("picture.png", "found str", "yield a NumPy array"),
        (PICTURE.astype(np.float32), r"found float32 \(32, 48, 3\)", "(255 * frame)"),
        (PICTURE[..., 0].astype(np.uint16), r"found uint16 \(32, 48\)", "scale to 8 bits"),
        (PICTURE.transpose(2, 0, 1), r"found uint8 \(3, 32, 48\)", "transpose(1, 2, 0)"),
        (PICTURE[None], r"found uint8 \(1, 32, 48, 3\)", "one picture at a time"),
        (PICTURE[..., :2], r"found uint8 \(32, 48, 2\)", "one picture at a time"),
        (PICTURE[:0], r"found uint8 \(0, 48, 3\)", "one picture at a time"),
    ],
)
def test_what_is_none(frame: Any, found: str, hint: str) -> None:
    with pytest.raises(SourceError, match=found) as refused:
        opened(frame).read()
    assert hint in str(refused.value.hint)
    assert "expected a frame, uint8 (H, W, 3) BGR" in str(refused.value)


def test_times_of_a_recording_count_from_its_first_frame() -> None:
    frames = opened((PICTURE, 7.0), (PICTURE, np.float64(7.5)), PICTURE)
    places = []
    for _ in range(3):
        frames.read()
        assert frames.place is not None
        places.append((frames.place.index, frames.place.media_time))
    assert places == [(0, 0.0), (1, 0.5), (2, None)]


def test_times_of_a_camera_are_those_of_the_monotonic_clock() -> None:
    now = time.monotonic()
    frames = opened((PICTURE, now - 1), PICTURE, (PICTURE, now + 3600), live=True)
    frames.read()
    assert frames.captured_at == now - 1
    frames.read()
    assert frames.captured_at is None
    with pytest.raises(SourceError, match="on the monotonic clock") as refused:
        frames.read()
    assert refused.value.hint == "take it from time.monotonic(), not time.time()"


@pytest.mark.parametrize("seconds", ["soon", float("nan"), [1]])
def test_what_is_no_time(seconds: Any) -> None:
    with pytest.raises(SourceError, match="expected the time of a frame in seconds"):
        opened((PICTURE, seconds)).read()


def test_an_exception_is_told_with_its_text() -> None:
    def frames() -> Iterator[Any]:
        yield PICTURE
        raise TimeoutError("no trigger\x1b[31m")

    reading = OwnFrames(from_frames(frames, "gate"))
    assert reading.read() is not None
    with pytest.raises(SourceError, match=r"^gate: TimeoutError: no trigger\\x1b\[31m$"):
        reading.read()

    def refusing() -> Iterator[Any]:
        raise AuthFailed("gate: wrong key")

    with pytest.raises(AuthFailed, match="wrong key"):
        OwnFrames(from_frames(refusing))
    with pytest.raises(OpenFailed, match="ZeroDivisionError: division by zero"):
        OwnFrames(from_frames(lambda: [1 / 0]))
    with pytest.raises(OpenFailed, match="expected an iterable of frames, found NoneType"):
        OwnFrames(from_frames(lambda: None))  # type: ignore[arg-type,return-value]


def test_a_function_is_a_camera_and_all_else_a_recording() -> None:
    camera = from_frames(opened)
    assert (camera.label, camera.live, camera.realtime) == ("python:opened", True, True)
    recording = from_frames([PICTURE], "two", fps=5)
    assert (str(recording), recording.live, recording.fps) == ("two", False, 5)
    assert not from_frames(iter([PICTURE])).live
    assert from_frames([PICTURE], live=True).live
    stack = open_frames(from_frames(np.stack([PICTURE, PICTURE])))
    assert [stack.read() is None for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("source", "says"),
    [(3, "found int"), ("clip.mkv", "found str"), (PICTURE, r"found an array \(32, 48, 3\)")],
)
def test_what_delivers_no_frames(source: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        from_frames(source)


def test_an_iterator_is_no_camera() -> None:
    with pytest.raises(UsageError, match="cannot be opened again") as refused:
        from_frames(iter([PICTURE]), live=True)
    assert "pass the function" in str(refused.value.hint)
