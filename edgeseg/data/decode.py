"""Decode picture and mask files, refusing files that OpenCV would silently alter.

Depending on its version, OpenCV returns the readable half of a truncated or damaged file, expands
palettes to colours, stretches 1-, 2- and 4-bit grey to 0…255, and reduces 16-bit pictures to 8
bits. Each of these corrupts class ids or pictures without any error.

Damage within a JPEG is what libjpeg warns of, within a PNG what its checksums find. WebP, TIFF and
uncompressed formats hold no checksums: of their files, only truncated ones are found.
"""

from __future__ import annotations

import functools
import logging
import re
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import Rgb
from edgeseg.artifacts.files import LFS_HINT, LFS_POINTER
from edgeseg.data import png
from edgeseg.data.headers import Header, check_pixels, count_pages, jpeg_segments, read_header
from edgeseg.errors import DatasetError

__all__ = [
    "PICTURE_SUFFIXES",
    "check_pixels",
    "load_header",
    "load_ids",
    "load_image",
    "load_palette",
    "upright",
]

PICTURE_SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
        *(".jp2", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
"""Suffixes of picture files, in lower case: formats that OpenCV reads as 8 bits per channel."""

logger = logging.getLogger(__name__)

_JPEG = b"\xff\xd8\xff"
# After these a picture is whole: unknown versions, parameters that only progressive files need, and
# up to 16 bytes with which some writers fill up a scan (more are left after damage, as a rule); and
# planes of sizes that simplejpeg does not read.
_HARMLESS = re.compile(
    r"Corrupt JPEG data: (\d|1[0-6]) extraneous"
    r"|.*(revision number|color transform|SOS parameters|subsampling level)"
)
_COLOUR_TYPES = {2: "RGB colour", 4: "grey with alpha", 6: "RGB colour with alpha"}
_OTHER_FORMAT = (
    f"convert a picture to one of {' '.join(sorted(PICTURE_SUFFIXES))}; "
    "a video is read by `edgeseg stream --source`"
)
_COPY_AGAIN = "copy the file again from where it came from, or take it out of the data set"


def load_image(path: Path) -> NDArray[np.uint8]:
    """Decode a picture file.

    Applies the EXIF orientation, drops alpha and repeats grey channels. If a file holds several
    pictures (TIFF stacks, animations), the first is read, and a warning is logged once per file.

    Returns:
        uint8 (H, W, 3) BGR.

    Raises:
        DatasetError: The file is missing, empty, truncated, altered or undecodable, has not 8 bits
            per channel, or more pixels than :func:`edgeseg.data.headers.pixel_limit`.
    """
    data = _read_whole(path)
    pixels = _upright(_decode(data, path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH), data)
    if pixels.dtype != np.uint8:
        raise DatasetError(
            f"{path}: expected 8 bits a channel, found {pixels.dtype}",
            hint="convert it to 8 bits with the same range as the frames of the camera",
        )
    if (pages := count_pages(data)) > 1:
        _warn_of_pages(path, pages)
    return np.asarray(pixels, np.uint8)


@functools.cache
def _warn_of_pages(path: Path, pages: int) -> None:
    logger.warning(
        "%s holds %d pictures, and only the first is read; split it, "
        "e.g. with `tiffsplit` or ImageMagick",
        path,
        pages,
    )


def load_header(path: Path) -> Header | None:
    """Read the size and EXIF orientation of a picture without decoding it.

    Returns:
        The header, or None if the format is not supported.

    Raises:
        DatasetError: The file is missing, empty, truncated or too large.
    """
    return read_header(_read_whole(path))


def load_palette(path: Path) -> tuple[Rgb, ...] | None:
    """Read the colours of a palette PNG by index; None for any other file.

    Raises:
        DatasetError: The file is missing, empty, truncated, altered or too large.
    """
    return png.palette_of(_read_whole(path))


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation to stored pixels (H, W) or (H, W, C).

    CIPA DC-008 (EXIF 3.0), 4.6.5.1, tag 274: the orientation says on which sides of the picture
    the first row and the first column are. Returns a view for orientation 1, else a copy.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    turned = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    if turned is not None:
        return np.ascontiguousarray(np.flip(pixels, (0, 1) if turned < 0 else turned))
    return np.ascontiguousarray(pixels)


def load_ids(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read a PNG of class or object ids exactly as stored.

    Greyscale of 1 to 16 bits gives raw values, a palette PNG its indices. The EXIF orientation is
    applied, as for pictures.

    Returns:
        uint8 (H, W), or uint16 if the file has 16 bits.

    Raises:
        DatasetError: The file is missing, empty, truncated, altered, undecodable, not a PNG, or has
            colour channels.
    """
    data = _read_whole(path)
    if not data.startswith(png.SIGNATURE):
        raise DatasetError(
            f"{path}: a mask is a PNG of ids, and this is not a PNG",
            hint="save masks as PNG; lossy formats change the ids",
        )
    colour_type = data[png.COLOUR_TYPE]
    if colour_type not in (png.GREY, png.INDEXED):
        raise DatasetError(
            f"{path}: a mask holds one id a pixel (grey or palette PNG), "
            f"found {_COLOUR_TYPES.get(colour_type, 'an unknown colour type')}",
            hint="replace each colour by the id of its class, e.g. with "
            "`edgeseg data convert --from colors`, and save as grey PNG",
        )
    if colour_type == png.INDEXED or data[png.DEPTH] < 8:
        colours = _decode(png.with_identity_palette(data), path, cv2.IMREAD_COLOR)
        return _upright(np.asarray(colours, np.uint8)[..., 0].copy(), data)
    return _upright(_decode(data, path, cv2.IMREAD_UNCHANGED), data)


def _read_whole(path: Path) -> bytes:
    """Read a file and check that it is complete according to its format."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint=f"check the path and its permissions: `ls -l {shlex.quote(str(path))}`",
        ) from error
    if not data:
        raise DatasetError(f"{path} is empty", hint=_COPY_AGAIN)
    if data.startswith(LFS_POINTER):
        raise DatasetError(f"{path} is a pointer of Git LFS", hint=LFS_HINT)
    check_pixels(data, path)
    if data.startswith(png.SIGNATURE):
        _check_png(data, path)
    elif data.startswith(_JPEG):
        _check_jpeg(data, path)
    return data


def _decode(data: bytes, path: Path, flags: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode without EXIF rotation, which OpenCV supports differently in each version."""
    if data.startswith(_JPEG) and (decoded := _decode_jpeg(data, path)) is not None:
        return decoded
    try:
        pixels: Any = cv2.imdecode(
            np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        raise DatasetError(f"{path}: cannot be decoded: {error.err}") from error
    if pixels is None:
        # HEIF comes from telephones, often with the suffix of a JPEG.
        other = path.suffix.lower() not in PICTURE_SUFFIXES or data[4:8] == b"ftyp"
        raise DatasetError(
            f"{path}: cannot be decoded; it is damaged or not a picture",
            hint=_OTHER_FORMAT if other else _COPY_AGAIN,
        )
    return np.asarray(pixels)


def _decode_jpeg(data: bytes, path: Path) -> NDArray[np.uint8] | None:
    """Decode with libjpeg's warnings as errors: OpenCV prints them and returns what it has.

    None leaves the picture to OpenCV.
    """
    try:
        import simplejpeg
    except ImportError:  # a processor that it has no wheel for
        _warn_of_unchecked()
        return None
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "BGR"), np.uint8)
    except ValueError as error:
        if _HARMLESS.match(str(error)):
            return None
        raise DatasetError(
            f"{path}: the JPEG is damaged, and part of the picture would be wrong: {error}",
            hint=_COPY_AGAIN,
        ) from error


@functools.cache
def _warn_of_unchecked() -> None:
    logger.warning(
        "damage within JPEG files is not found, since simplejpeg is missing; "
        "install it with `pip install simplejpeg`"
    )


def _upright(pixels: NDArray[Any], data: bytes) -> NDArray[Any]:
    header = read_header(data)
    if header is None or data[:2] in (b"II", b"MM"):
        return pixels  # OpenCV always rotates TIFF, whatever the flags
    return upright(pixels, header.orientation)


def _check_png(data: bytes, path: Path) -> None:
    kinds = [kind for kind, _, _ in png.chunks(data)]
    if kinds[:1] != [b"IHDR"] or b"IEND" not in kinds:
        raise DatasetError(
            f"{path}: the PNG is truncated or altered: {len(data)} bytes, "
            f"{len(kinds)} good chunks and no end mark after them",
            hint=_COPY_AGAIN,
        )


def _check_jpeg(data: bytes, path: Path) -> None:
    """Require an end-of-image marker after the first scan; a thumbnail's does not count."""
    position = max((end for _, _, end in jpeg_segments(data)), default=len(data))
    # Within a scan 0xFF is followed by 0x00, a restart marker or, before a marker, more 0xFF,
    # so this is the end marker; anything after it belongs to no picture.
    if data.find(b"\xff\xd9", position) < 0:
        raise DatasetError(
            f"{path}: the JPEG is truncated: no end mark in its {len(data)} bytes", hint=_COPY_AGAIN
        )
