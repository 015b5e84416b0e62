"""Label maps as picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from edgeseg.errors import UsageError
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, Source


class Masks(Sink):
    """Label maps at frame size as ``FOLDER/000042.png``, grey value = class id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return f"the mask folder {self.folder}"

    def open(self, sources: Sequence[Source]) -> None:  # noqa: ARG002 - the sink protocol's
        """Raises UsageError if the folder cannot be made."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make {self.folder}: {error.strerror}", mend="choose another folder"
            ) from error

    def write(self, result: StreamResult) -> None:
        """Raises OSError when the disk is full; no half file stays."""
        path = self.folder / f"{result.index:06d}.png"
        # OpenCV's own file writing does not say that the disk is full.
        encoded = cv2.imencode(".png", result.mask(), (cv2.IMWRITE_PNG_COMPRESSION, 1))[1]
        try:
            path.write_bytes(encoded.tobytes())
        except OSError:
            path.unlink(missing_ok=True)
            raise
