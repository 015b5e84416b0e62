"""Read the size and EXIF orientation of encoded pictures without decoding them.

This allows refusing decompression bombs, small files that would decode to gigabytes.
:func:`check_pixels` takes the first bytes of a file, or a whole file or frame, and is cheap enough
to call for each camera frame.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edgeseg.errors import DatasetError, UsageError

MAX_PIXELS = 1 << 28
"""Default maximum pixels of a picture or frame: 16384×16384, 0.8 GB as BGR."""

_VARIABLE = "EDGESEG_MAX_PIXELS"
_BYTES = 10  # approximate memory per pixel: picture, label map, overlay and one of them encoded

_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\0\0"
# Tags of TIFF 6.0; EXIF is a TIFF without pixels.
_SUBFILE, _WIDTH, _HEIGHT, _DESCRIPTION, _ORIENTATION = 254, 256, 257, 270, 274
_IMAGEJ = re.compile(rb"ImageJ=[^\0]*?\nimages=(\d+)")
_STANDALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # JPEG markers without a length: B.1.1.3
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 … SOF15
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)")


@dataclass(frozen=True)
class Header:
    """Stored width and height in pixels, and EXIF orientation, 1 (upright) to 8.

    Orientations 5 to 8 swap width and height when the picture is shown.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def shown(self) -> tuple[int, int]:
        """(height, width) of the picture after its EXIF rotation."""
        upright = self.orientation < 5
        return (self.height, self.width) if upright else (self.width, self.height)


def read_header(data: bytes) -> Header | None:
    """Read the size and orientation of an encoded picture.

    Args:
        data: PNG, JPEG, WebP, GIF, BMP, TIFF, PNM or JPEG 2000; the whole file or its beginning.

    Returns:
        The header, or None if the format is unknown or ``data`` ends before the size.
    """
    try:
        return _parse(data)
    except (struct.error, ValueError, IndexError):
        return None


def check_pixels(data: bytes, name: object, limit: int | None = None) -> None:
    """Raise DatasetError if an encoded picture exceeds the pixel limit, without decoding it.

    Data without a readable size passes and is left to the decoder.

    Args:
        data: Encoded picture, as for :func:`read_header`.
        name: Name of the file or camera, for the error message.
        limit: Maximum number of pixels; None for :func:`pixel_limit`.

    Raises:
        DatasetError: The picture has more pixels.
    """
    header = read_header(data)
    pixels = header.width * header.height if header else 0
    limit = pixel_limit() if limit is None else limit
    if header and pixels > limit:
        raise DatasetError(
            f"{name}: {header.width}×{header.height} are {pixels} pixels, "
            f"more than the limit of {limit}",
            hint=f"cut it into smaller pictures, or allow it with --max-pixels {pixels} "
            f"({_VARIABLE}={pixels} where a command has no such option); "
            f"it takes about {pixels * _BYTES / 2**30:.1f} GiB of memory",
        )


def count_pages(data: bytes) -> int:
    """Count the pictures of a TIFF, GIF, WebP or PNG file, without smaller copies of them.

    Returns 1 for other formats, and what the file holds up to damage.
    """
    if data.startswith(_PNG):  # APNG: the third edition of PNG, 11.3.4.1
        return max(1, int.from_bytes(_chunk(data, len(_PNG), b"acTL", ">")[:4], "big"))
    if data.startswith(b"RIFF"):
        return max(1, sum(kind == b"ANMF" for kind, _ in _chunks(data, 12, "<")))
    if data.startswith(b"GIF8"):
        return max(1, _gif_pictures(data))
    return max(1, _tiff_pictures(data))


def _tiff_pictures(data: bytes) -> int:
    """Count the directories of pictures, or take ImageJ's word.

    ImageJ states the number of a stack in the description of its first picture, and the others
    may follow its pixels without directories of their own.
    """
    pages = stacked = 0
    with contextlib.suppress(struct.error, IndexError):
        for tags in _directories(data):
            pages += not tags.get(_SUBFILE, 0) & 1
            found = _IMAGEJ.match(data, tags.get(_DESCRIPTION, 0))
            # A description may have outlived the other pictures.
            if found and len(data) >= int(found[1]) * tags[_WIDTH] * tags[_HEIGHT]:
                stacked = int(found[1])
    return max(pages, stacked)


def _gif_pictures(data: bytes) -> int:
    """Count the image descriptors of a GIF: section 20 of GIF89a."""
    pictures = 0
    with contextlib.suppress(IndexError):
        at = 13 + _colours(data[10])
        while data[at] in (0x21, 0x2C):
            pictures += data[at] == 0x2C
            # Behind the descriptor, the colours and a byte of LZW; behind an extension's label.
            at += 11 + _colours(data[at + 9]) if data[at] == 0x2C else 2
            while data[at]:
                at += 1 + data[at]
            at += 1
    return pictures


def _colours(flags: int) -> int:
    """Return the bytes of a GIF's colour table: sections 18 and 20."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def pixel_limit() -> int:
    """Return the maximum pixels per picture: ``EDGESEG_MAX_PIXELS``, else :data:`MAX_PIXELS`.

    Raises:
        UsageError: The variable is not a positive whole number.
    """
    text = os.environ.get(_VARIABLE, "")
    if text and (not text.isascii() or not text.isdecimal() or int(text) < 1):
        raise UsageError(
            f"{_VARIABLE} is a whole number of pixels from 1 on, not {text!r}",
            hint=f"unset {_VARIABLE}, or set it to {MAX_PIXELS}",
        )
    return int(text) if text else MAX_PIXELS


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each JPEG segment's body, up to the first scan's header.

    Any marker may follow fill bytes 0xFF (ITU-T T.81, B.1.1.2). Stray bytes between segments are
    skipped, as decoders do.
    """
    position = 2
    while (position := data.find(b"\xff", position)) >= 0:
        while data[position : position + 1] == b"\xff":
            position += 1
        if position >= len(data):
            return
        marker = data[position]
        position += 1
        if marker == 0 or marker in _STANDALONE:
            continue
        if marker == 0xD9 or position + 2 > len(data):
            return
        end = position + max(2, int.from_bytes(data[position : position + 2], "big"))
        yield marker, position + 2, end
        if marker == 0xDA:
            return
        position = end


def _parse(data: bytes) -> Header | None:
    if data.startswith(_PNG):
        width, height = struct.unpack_from(">II", data, 16)
        return Header(width, height, _of_exif(_chunk(data, len(_PNG), b"eXIf", ">")))
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        tags = _tags(data)
        if _WIDTH in tags and _HEIGHT in tags:
            return Header(tags[_WIDTH], tags[_HEIGHT], _orientation(tags))
        return None
    return _simple(data)


def _simple(data: bytes) -> Header | None:
    """Parse formats with a size at a fixed offset and no orientation."""
    if data.startswith(b"GIF8"):
        return Header(*struct.unpack_from("<HH", data, 6))
    if data.startswith(b"BM"):
        (size,) = struct.unpack_from("<I", data, 14)
        width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
        return Header(abs(width), abs(height))
    if match := _PNM.match(data[:4096]):
        return Header(int(match[1]), int(match[2]))
    if data[4:8] == b"jP  ":
        height, width = struct.unpack_from(">II", data, data.index(b"ihdr", 0, 4096) + 4)
        return Header(width, height)
    if data.startswith(b"\xff\x4f\xff\x51"):  # bare JPEG 2000 codestream
        right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
        return Header(right - left, bottom - top)
    return None


def _jpeg(data: bytes) -> Header | None:
    size, orientation = None, 1
    for marker, start, end in jpeg_segments(data):
        if marker == 0xE1 and data.startswith(_EXIF, start):
            orientation = _of_exif(data[start:end])
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 1)
            size = width, height
    return Header(*size, orientation) if size else None


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        return None
    return Header(width, height, _of_exif(_chunk(data, 12, b"EXIF", "<")))


def _chunk(data: bytes, start: int, wanted: bytes, order: str) -> bytes:
    """Return the first chunk of a kind in a PNG (``>``) or RIFF (``<``) file; empty if none."""
    return next((body for kind, body in _chunks(data, start, order) if kind == wanted), b"")


def _chunks(data: bytes, start: int, order: str) -> Iterator[tuple[bytes, bytes]]:
    while start + 8 <= len(data):
        first, second = data[start : start + 4], data[start + 4 : start + 8]
        kind, number = (second, first) if order == ">" else (first, second)
        (length,) = struct.unpack(f"{order}I", number)
        yield kind, data[start + 8 : start + 8 + length]
        start += length + (12 if order == ">" else 8 + length % 2)


def _of_exif(block: bytes) -> int:
    try:
        return _orientation(_tags(block.removeprefix(_EXIF)))
    except (struct.error, IndexError):
        return 1


def _orientation(tags: dict[int, int]) -> int:
    found = tags.get(_ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1


def _tags(data: bytes) -> dict[int, int]:
    return next(_directories(data), {})


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """Yield the tags of each directory of a TIFF or BigTIFF file, by tag number.

    The first value of integers, the place of texts.
    """
    if data[:2] not in (b"II", b"MM"):
        return
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    offset, step = (order + "Q", 20) if big else (order + "I", 12)
    (at,) = struct.unpack_from(offset, data, 8 if big else 4)
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        first = at + (8 if big else 2)
        found = {}
        for entry in range(first, first + step * min(count, 4096), step):
            tag, kind = struct.unpack_from(f"{order}HH", data, entry)
            form = {1: "B", 2: offset[1], 3: "H", 4: "I", 16: "Q"}.get(kind)
            if form and (form != "Q" or big):
                (found[tag],) = struct.unpack_from(order + form, data, entry + (12 if big else 8))
        yield found
        (at,) = struct.unpack_from(offset, data, first + step * count)
