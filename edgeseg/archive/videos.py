"""Exact ranges of the frames of a video file, by PyAV.

A number of a frame is its place in the order of presentation, as a reader finds it that decodes
the file from its start. A worker that begins in the middle goes to the key frame before it;
which frame is which is told by their presentation times, which all packets state and which are
gathered without decoding. Where they do not (missing, equal, or those of decoding), it decodes
from the start.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DatasetError, RuntimeMissing

VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
)


def frame_count(path: Path) -> int:
    """About how many frames a video has, from its header; 0 where that says nothing.

    Raises:
        RuntimeMissing: There is no PyAV.
    """
    av = _pyav()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.frames:
                return int(stream.frames)
            seconds = (container.duration or 0) / av.time_base
            return int(seconds * (stream.average_rate or 0))
    except (av.FFmpegError, ValueError, IndexError):
        return 0  # Who reads it says why.


def read_frames(
    path: Path, first: int, last: int | None, every: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The frames ``first``, ``first + every`` … before ``last``, with their numbers.

    Args:
        path: A video file.
        first: Number of a frame; may lie behind the end, where there are none.
        last: None for the end of the video.
        every: Step.

    Yields:
        Number and picture, uint8 (H, W, 3) BGR, turned as the file says.

    Raises:
        DatasetError: It cannot be opened or holds no video; or, at the end, wanted frames that
            the file states could not be decoded.
        RuntimeMissing: There is no PyAV.
    """
    av = _pyav()
    try:
        times = _times(str(path), os.stat(path).st_mtime_ns)  # noqa: PTH116
        wanted = dict.fromkeys(range(len(times))[first:last:every]) if times else None
        with av.open(str(path)) as container:
            if times is None:
                yield from _counted(container, first, last, every)
                return
            yield from _timed(container, times, list(wanted or ()), path)
    except (av.FFmpegError, ValueError, IndexError, OSError) as error:
        raise DatasetError(
            f"{path}: no video that can be decoded ({type(error).__name__})",
            mend="copy the file again from where it came from, or take it out of the archive",
        ) from None


def _timed(
    container: Any, times: tuple[int, ...], wanted: list[int], path: Path
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    if not wanted:
        return
    numbers = {times[number]: number for number in wanted}
    for frame in _from(container, times[wanted[0]]):
        number = numbers.pop(frame.pts, None)
        if number is not None:
            yield number, _picture(frame)
        if not numbers:
            return
    raise DatasetError(
        f"{path}: {len(numbers)} of the frames {wanted[0]} to {wanted[-1]} cannot be decoded",
        mend="copy the file again from where it came from, or take it out of the archive",
    )


def _from(container: Any, time: int) -> Iterator[Any]:
    """Decoded frames from ``time`` on or from before it; from the start if seeking went past."""
    stream = _video(container)
    if time > (stream.start_time or 0):
        container.seek(time, stream=stream)
        frames = container.decode(stream)
        head = next(frames, None)
        if head is not None and head.pts is not None and head.pts <= time:
            yield head
            yield from frames
            return
        container.seek(0, stream=stream)
    yield from container.decode(stream)


def _counted(
    container: Any, first: int, last: int | None, every: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for number, frame in enumerate(container.decode(_video(container))):
        if last is not None and number >= last:
            return
        if number >= first and (number - first) % every == 0:
            yield number, _picture(frame)


@functools.lru_cache(maxsize=4)
def _times(path: str, changed: int) -> tuple[int, ...] | None:  # noqa: ARG001 - part of the key
    """Presentation times of all frames in order, None where they do not tell frames apart."""
    with _pyav().open(path) as container:
        stream = _video(container)
        packets = (packet for packet in container.demux(stream) if packet.size)
        times = [packet.pts for packet in packets if not packet.is_discard]
        reorders = stream.codec_context.has_b_frames
    if None in times or len(set(times)) < len(times):
        return None
    ordered = sorted(times)
    # AVI knows the order of decoding alone, and FFmpeg takes that for the times.
    return None if reorders and ordered == times else tuple(ordered)


def _video(container: Any) -> Any:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # A worker has the cores that the engine was given.
    return stream


def _picture(frame: Any) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] = frame.to_ndarray(format="bgr24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _pyav() -> Any:
    try:
        import av
        import av.logging
    except ModuleNotFoundError:
        raise RuntimeMissing(
            "videos of an archive are read by PyAV, which is not installed",
            mend="pip install 'edgeseg[cluster]'",
        ) from None
    av.logging.set_level(av.logging.PANIC)  # What it finds in damaged files is ours to say.
    return av
