"""Split an archive into units of work: pictures, and ranges of video frames.

A unit is processed by one worker and repeated as a whole after a crash. The output folder mirrors
the structure of the archive::

    edgeseg infer ENGINE archive --out out
    archive/cam1/a.jpg   →  out/cam1/a.labels.png
    archive/drive.mp4    →  out/drive.mp4/000000.labels.png …
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edgeseg.archive.videos import VIDEO_SUFFIXES, frame_count
from edgeseg.artifacts.documents import Document
from edgeseg.data.decode import PICTURE_SUFFIXES
from edgeseg.errors import UsageError

FRAMES = 200
"""Label maps per video unit: some seconds of work, the most that a crash repeats."""


class Unit(Document):
    """One unit of work.

    Attributes:
        name: Path of the results relative to the output folder: the file's path in the archive,
            without suffix for a picture.
        source: Absolute path of the file.
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
        out: The output folder.
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
    path = Path(text).expanduser()
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
