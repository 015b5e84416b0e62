"""Split an archive into units of work: pictures, and ranges of video frames.

A unit is processed by one worker and repeated as a whole after a crash. The output folder mirrors
the structure of the archive::

    edgeseg infer ENGINE archive --out out
    archive/cam1/a.jpg   →  out/cam1/a.labels.png
    archive/drive.mp4    →  out/drive.mp4/000000.labels.png …
"""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.documents import Document
from edgeseg.data.decode import PICTURE_SUFFIXES
from edgeseg.errors import DatasetError, UsageError, needed
from edgeseg.machine import expanded
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

    Frames are numbered in presentation order, as when a stream reads the file from its start
    (:mod:`edgeseg.sources.places`). To start in the middle, the reader seeks to the preceding key
    frame and identifies frames by their presentation times, which are collected from all packets
    without decoding. If these times are unusable (missing, equal, or decoding times), it decodes
    from the start.

    Args:
        first: First frame number; past the end of the video nothing is yielded.
        last: End of the range, exclusive; None for the end of the video.

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
    with needed("videos of an archive need", "cluster"):
        import av
    return av


FRAMES = 200
"""Label maps per video unit: some seconds of work, the most that a crash repeats."""


class Unit(Document):
    """One unit of work.

    Attributes:
        name: Path of the results relative to the output folder: the file's path in the archive,
            without suffix for a picture.
        first: First frame number of a video range, None for a picture.
        last: End of the frame range, exclusive; None for the end of the video.
    """

    name: str
    source: str
    first: int | None = None
    last: int | None = None

    @property
    def key(self) -> str:
        """Key of the unit, unique within the archive."""
        return self.name if self.first is None else f"{self.name}#{self.first}"


def find_units(paths: Sequence[str], out: Path, every: int = 1) -> list[Unit]:
    """List the units of an archive, sorted by name.

    Args:
        paths: Folders (searched recursively), globs, files, and lists: text files (``.txt``) with
            one path per line. Hidden files and files in ``out`` are skipped.
        every: Process every n-th frame of videos.

    Raises:
        UsageError: Nothing is found, a path is invalid, or two files would have the same output
            path.
    """
    found: dict[str, Path] = {}
    below = Path(os.path.abspath(out))  # noqa: PTH100 - unlike resolve(), keeps links
    for name, path in (pair for text in paths for pair in _of(text)):
        path = Path(os.path.abspath(path))  # noqa: PTH100
        if below in path.parents:
            continue
        other = found.setdefault(name, path)
        if other != path:
            raise UsageError(
                f"{other} and {path} would be written to the same file",
                hint="name a folder that holds both, or segment them into different --out folders",
            )
    if not found:
        raise UsageError(
            f"no pictures and no videos in {', '.join(paths)}",
            hint="name a folder, a glob in quotes, files, or a .txt of one path a line",
        )
    return [unit for name in sorted(found) for unit in _units(name, found[name], every)]


def _units(name: str, path: Path, every: int) -> Iterator[Unit]:
    """Yield a picture, or the ranges of a video, the last open-ended as headers may be wrong."""
    if not _is_video(path):
        yield Unit(name=name, source=str(path))
        return
    span = FRAMES * every
    starts = range(0, max(frame_count(path), 1), span)
    for first in starts:
        last = None if first == starts[-1] else first + span
        yield Unit(name=name, source=str(path), first=first, last=last)


def _of(text: str) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of all files that a command-line path refers to."""
    if "://" in text:
        raise UsageError(
            f"{text.partition('://')[0]}:// is not read: every worker reads paths",
            hint="mount it on every machine of the cluster, and name the mounted folder",
        )
    path = expanded(text)
    if path.is_dir():
        yield from _named(_walk(path), path)
    elif path.suffix.lower() == ".txt" and path.is_file():
        yield from _listed(path)
    elif path.is_file():
        yield _name(Path(path.name), path), path
    elif glob.has_magic(text):
        fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = fixed.glob(str(path.relative_to(fixed)))
        yield from _named((match for match in matches if match.is_file()), fixed)
    else:
        raise UsageError(f"{text}: no such file or folder", hint="check the path")


def _listed(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the entries of a list; relative paths refer to the current folder."""
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        entry = Path(line.strip())
        if not line.strip():
            continue
        if not entry.is_file():
            raise UsageError(f"{path}:{number}: {entry}: no such file", hint="check the list")
        relative = entry.relative_to(entry.anchor) if entry.is_absolute() else entry
        yield _name(Path(os.path.normpath(relative)), entry), entry


def _named(paths: Iterable[Path], root: Path) -> Iterator[tuple[str, Path]]:
    for path in paths:
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") for part in relative.parts)
        if not hidden and (_is_video(path) or path.suffix.lower() in PICTURE_SUFFIXES):
            yield _name(relative, path), path


def _name(relative: Path, path: Path) -> str:
    if ".." in relative.parts:
        raise UsageError(
            f"{relative} would be written outside of the output folder",
            hint="write absolute paths into the list, or paths below the current folder",
        )
    return (relative if _is_video(path) else relative.with_suffix("")).as_posix()


def _walk(root: Path) -> Iterator[Path]:
    """Yield all files below ``root``; linked folders are skipped, as they may form cycles."""
    for folder, _, files in os.walk(root):
        yield from (Path(folder, file) for file in files)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES
