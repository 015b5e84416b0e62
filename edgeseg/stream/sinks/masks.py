"""Label maps as picture files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import cv2

from edgeseg.artifacts.documents import printable
from edgeseg.artifacts.files import refuse_to_replace
from edgeseg.data import png
from edgeseg.errors import UsageError
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus
from edgeseg.stream.sinks.files import (
    lock_folder,
    make_folder,
    remove_empty,
    write_new,
    write_over,
    write_refusal,
)
from edgeseg.stream.sinks.retention import Budget, Shelf

_NUMBERED = re.compile(r"(\d{6,})\.png")
"""Masks of frames that have no name."""

_MARK = png.chunk(b"tEXt", b"Software\0edgeseg")
"""Marks masks among other PNG files (PNG specification, 11.3.3)."""


class Masks(Sink):
    """Label maps at frame size as PNG files whose values are class ids.

    Frames of a video are named by number, such as ``FOLDER/000042.png``; pictures keep their
    name. Numbering of camera frames continues after the highest existing number. Otherwise
    existing files are never replaced, unless ``overwrite`` is set.

    Args:
        folder: Output folder; created if missing, and locked to one stream at a time.
        coloured: Add the class colours as a palette for image viewers; pixel values remain
            class ids. OpenCV reads such a file as colours;
            :func:`edgeseg.data.decode.load_ids` and Pillow read ids.
        pictures: Files that the source reads; empty for a video or camera.
        budget: Budget that the numbered masks of all runs count towards; PNG files that
            edgeseg did not write are neither counted nor deleted.
        overwrite: Replace existing files, except ``pictures``.
    """

    retry = "next"

    def __init__(
        self,
        folder: Path,
        *,
        coloured: bool = False,
        pictures: Sequence[Path] = (),
        budget: Budget | None = None,
        overwrite: bool = False,
    ) -> None:
        self.folder = folder
        self.coloured = coloured
        self._pictures = pictures
        self._overwrite = overwrite
        self._budget = budget
        self._shelf: Shelf | None = None
        self._first = 0
        self._handle: int | None = None
        self._made: list[Path] = []

    def __str__(self) -> str:
        return f"the mask folder {printable(str(self.folder))}"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Lock the folder and check that no file would be replaced.

        Raises:
            UsageError: The folder cannot be made, two pictures would share a mask, or a file is
                there that would be replaced.
            OutputError: The disk is full or gone, or another process writes into the folder.
        """
        self._made += make_folder(self.folder)
        try:
            self._check_pictures()
            self._handle = lock_folder(self.folder)
            self._shelf = Shelf(self.folder, _NUMBERED, self._budget, ours=is_ours)
            there = self._shelf.names(0)
            if there and not (self._overwrite or self._pictures):
                # Of a camera, or where frames are dropped, numbers count only their order.
                if not all(s.live or (s.realtime and s.declared is None) for s in sources):
                    refuse_to_replace(self.folder / there[0], overwrite=False)
                self._first = int(Path(there[-1]).stem) + 1
            self._shelf.scan()
        except OSError as error:
            self.close()
            raise write_refusal(self.folder, error) from error
        except BaseException:
            self.close()
            raise

    def write(self, result: StreamResult) -> None:
        """Raises OSError when the disk is full or the file exists; no half file stays."""
        numbered = result.name is None
        stem = f"{self._first + result.index:06d}" if numbered else Path(result.name or "").stem
        path = self.folder / f"{stem}.png"
        # OpenCV's own file writing does not say that the disk is full.
        encoded = cv2.imencode(".png", result.mask(), (cv2.IMWRITE_PNG_COMPRESSION, 1))[1]
        data = encoded.tobytes()
        if self.coloured:
            data = png.with_palette(data, result.classes.palette)
        data = data[: png.HEAD] + _MARK + data[png.HEAD :]
        (write_over if self._overwrite else write_new)(path, data)
        if numbered and self._shelf is not None:
            self._shelf.put(path, len(data))

    def close(self) -> None:
        """Let others have the folder; without a mask none stays that was not there before."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        remove_empty(self._made)

    def _check_pictures(self) -> None:
        """Raises UsageError where a mask would replace something."""
        seen: dict[str, Path] = {}
        for picture in self._pictures:
            other = seen.setdefault(picture.stem, picture)
            if other is not picture:
                raise UsageError(
                    f"{printable(str(other))} and {printable(str(picture))} would have the same "
                    f"mask, {printable(picture.stem)}.png",
                    hint="rename one of them",
                )
            mask = self.folder / f"{picture.stem}.png"
            if mask.exists() and mask.samefile(picture):
                raise UsageError(
                    f"the mask of {printable(str(picture))} would replace the picture",
                    hint="choose another folder for the masks",
                )
            refuse_to_replace(mask, overwrite=self._overwrite)


def is_ours(path: Path) -> bool:
    """Whether a file is a mask written by :class:`Masks`; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(png.HEAD + len(_MARK))[png.HEAD :] == _MARK
    except OSError:
        return False
