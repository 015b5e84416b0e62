"""Label maps as picture files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2

from edgeseg.card import Rgb
from edgeseg.errors import UsageError
from edgeseg.ops.overlay import UNNAMED_COLOUR
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, Source

_INDEXED = 3
"""Colour type of a PNG with a palette."""


class Masks(Sink):
    """Label maps at frame size as PNG files whose values are class ids.

    A frame of a video becomes ``FOLDER/000042.png`` by its number, a picture keeps its name.

    Args:
        folder: Made if it is not there.
        coloured: Add the class colours as a palette, so that viewers show them; the values
            stay the ids. OpenCV's own reader gives colours for such a file;
            :func:`edgeseg.data.decode.load_ids` and Pillow give ids.
    """

    def __init__(self, folder: Path, *, coloured: bool = False) -> None:
        self.folder = folder
        self.coloured = coloured

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
        stem = f"{result.index:06d}" if result.name is None else Path(result.name).stem
        path = self.folder / f"{stem}.png"
        # OpenCV's own file writing does not say that the disk is full.
        encoded = cv2.imencode(".png", result.mask(), (cv2.IMWRITE_PNG_COMPRESSION, 1))[1]
        try:
            path.write_bytes(self._finished(encoded.tobytes(), result))
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def _finished(self, grey: bytes, result: StreamResult) -> bytes:
        return with_palette(grey, result.classes.palette) if self.coloured else grey


def with_palette(grey: bytes, palette: Sequence[Rgb]) -> bytes:
    """The 8-bit grey PNG as an indexed one: same values, shown in these colours.

    Args:
        grey: A PNG whose header is its first chunk (PNG specification, 5.6 and 11.2).
        palette: RGB, one an id; ids past it are shown in ``UNNAMED_COLOUR``.
    """
    colours = [*palette, *[UNNAMED_COLOUR] * (256 - len(palette))]
    header = bytearray(grey[16:29])
    header[9] = _INDEXED
    table = _chunk(b"PLTE", bytes(part for colour in colours for part in colour))
    return grey[:8] + _chunk(b"IHDR", bytes(header)) + table + grey[33:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
