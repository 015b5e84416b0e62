"""Read exact ranges of video frames with PyAV.

Frames are numbered in presentation order, the same as when a stream reads the file from its start
(:mod:`edgeseg.sources.places`). To start in the middle, the reader seeks to the preceding key frame
and identifies frames by their presentation times, which are collected from all packets without
decoding. If these times are unusable (missing, equal, or decoding times), it decodes from the
start.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import DatasetError, RuntimeMissing
from edgeseg.sources.places import Timeline
from edgeseg.sources.recorded import Packets, frame_rate, lost_by_hole, open_video, turned

VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
)


def frame_count(path: Path) -> int:
    """Estimate the number of frames from a video's header; 0 if unknown.

    Raises:
        RuntimeMissing: There is no PyAV.
    """
    av = _pyav()
    try:
        container, stream = open_video(path)
        with container:
            if stream.frames:
                return int(stream.frames)
            seconds = (container.duration or 0) / av.time_base
            return int(seconds * (stream.average_rate or 0))
    except OSError:
        return 0  # The reader reports the error.


def read_frames(
    path: Path, first: int, last: int | None, every: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the frames ``first``, ``first + every`` … before ``last``, with their numbers.

    Args:
        path: Video file.
        first: First frame number; past the end of the video nothing is yielded.
        last: End of the range, exclusive; None for the end of the video.
        every: Step between frames.

    Yields:
        Frame number and picture, uint8 (H, W, 3) BGR, rotated as the file specifies.

    Raises:
        DatasetError: The file cannot be opened or has no video stream, or (raised at the end)
            requested frames could not be decoded.
        RuntimeMissing: There is no PyAV.
    """
    av = _pyav()
    try:
        numbers = _numbers(str(path), os.stat(path).st_mtime_ns)  # noqa: PTH116
        container, stream = open_video(path)
        with container:
            stream.codec_context.thread_count = 1  # The engine uses the worker's cores.
            if numbers is None:
                yield from _counted(container, stream, first, last, every)
                return
            end = max(numbers.values(), default=-1) + 1
            wanted = range(end)[first:last:every]
            yield from _timed(container, stream, numbers, wanted, path)
    except (av.FFmpegError, ValueError, IndexError, OSError) as error:
        raise DatasetError(
            f"{path}: not a video that can be decoded ({type(error).__name__})",
            hint="copy the file again from its origin, or remove it from the archive",
        ) from None


def _timed(
    container: Any, stream: Any, numbers: Mapping[int, int], wanted: range, path: Path
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    times = {time: number for time, number in numbers.items() if number in wanted}
    left = len(wanted)
    if not left:
        return
    for frame in _from(container, stream, min(times)) if times else ():
        number = times.pop(frame.pts, None)
        if number is not None:
            left -= 1
            yield number, _picture(frame)
        if not times:
            break
    if left:
        raise DatasetError(
            f"{path}: {left} of the frames {wanted[0]} to {wanted[-1]} cannot be decoded",
            hint="copy the file again from its origin, or remove it from the archive",
        )


def _from(container: Any, stream: Any, time: int) -> Iterator[Any]:
    """Decode from ``time`` or before it; from the start if seeking went too far."""
    if time > (stream.start_time or 0):
        container.seek(time, stream=stream)
        frames = _decoded(container, stream)
        head = next(frames, None)
        if head is not None and head.pts is not None and head.pts <= time:
            yield head
            yield from frames
            return
        container.seek(0, stream=stream)
    yield from _decoded(container, stream)


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the frames that can be decoded."""
    failure = _pyav().FFmpegError
    for packet in container.demux(stream):
        with contextlib.suppress(failure):
            yield from packet.decode()


def _counted(
    container: Any, stream: Any, first: int, last: int | None, every: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for number, frame in enumerate(_decoded(container, stream)):
        if last is not None and number >= last:
            return
        if number >= first and (number - first) % every == 0:
            yield number, _picture(frame)


@functools.lru_cache(maxsize=4)
def _numbers(path: str, changed: int) -> Mapping[int, int] | None:  # noqa: ARG001 - part of the key
    """Map presentation times to frame numbers; None if times do not identify frames.

    In a damaged file, lost frames have a number but no time.
    """
    container, stream = open_video(Path(path))
    with container:
        packets = Packets(container, stream)
        found = [(packet.pts, mark) for packet, mark in packets if mark is not None]
        reorders = stream.codec_context.has_b_frames
        rate = frame_rate(stream)
        gone = None if packets.stamped or packets.indexed else lost_by_hole(packets, stream)
    times = [time for time, _ in found]
    if None in times or len(set(times)) < len(times):
        return None
    # AVI stores decoding order only, and FFmpeg derives the times from it.
    if reorders and not packets.stamped:
        return None
    timeline = Timeline(path, rate)
    timeline.damage, timeline.gone = bool(packets.holes), gone
    return {time: timeline.place(mark)[0] for time, mark in sorted(found)}


def _picture(frame: Any) -> NDArray[np.uint8]:
    return turned(frame.to_ndarray(format="bgr24"), frame.rotation)


def _pyav() -> Any:
    try:
        import av
        import av.logging
    except ModuleNotFoundError:
        raise RuntimeMissing(
            "videos of an archive are read by PyAV, which is not installed",
            hint="pip install 'edgeseg[cluster]'",
        ) from None
    av.logging.set_level(av.logging.PANIC)  # Damaged files are reported by us.
    return av
