"""PNG files as chunks, and the palettes among them (PNG specification, third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

from edgeseg.artifacts.card import Rgb
from edgeseg.ops.overlay import UNNAMED_COLOUR

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DEPTH, COLOUR_TYPE = 24, 25
"""Places in a file of two bytes of its header: section 11.2.1."""
GREY, INDEXED = 0, 3
"""Colour types with one value a pixel."""
HEAD = 33
"""Bytes of the signature and of the header, the first chunk."""


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk with its length and checksum: section 5.3."""
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of each complete chunk with a correct checksum.

    Ancillary chunks (first letter in lower case) may have a wrong one, as decoders skip them.
    """
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        if end > len(data):
            return
        kind, body = data[start + 4 : start + 8], data[start + 4 : end - 4]
        ancillary = kind[0] & 0x20
        if not ancillary and zlib.crc32(body) != struct.unpack_from(">I", data, end - 4)[0]:
            return
        yield kind, start, end
        start = end


def palette_of(data: bytes) -> tuple[Rgb, ...] | None:
    """Return the colours of an indexed PNG by index; None for any other file."""
    if not data.startswith(SIGNATURE) or data[COLOUR_TYPE] != INDEXED:
        return None
    bodies = (data[start + 8 : end - 4] for kind, start, end in chunks(data) if kind == b"PLTE")
    colours = next(bodies, b"")
    return tuple(
        (colours[at], colours[at + 1], colours[at + 2]) for at in range(0, len(colours), 3)
    )


def with_palette(grey: bytes, palette: Sequence[Rgb]) -> bytes:
    """Return an 8-bit grey PNG as an indexed one: same values, shown in these colours.

    Args:
        grey: A complete file.
        palette: RGB, one an id; ids past it are shown in ``UNNAMED_COLOUR``.
    """
    colours = [*palette, *[UNNAMED_COLOUR] * (256 - len(palette))]
    return _indexed_head(grey, colours) + grey[HEAD:]


def with_identity_palette(data: bytes) -> bytes:
    """Return a grey or indexed PNG with a palette that maps each index to its own number.

    Decoders then return the indices in every channel. Grey below 8 bits becomes a palette
    picture, since decoders stretch grey to the full range.
    """
    ramp = [(value, value, value) for value in range(1 << data[DEPTH])]
    kept = [data[start:end] for kind, start, end in chunks(data) if kind in (b"IDAT", b"IEND")]
    return b"".join([_indexed_head(data, ramp), *kept])


def _indexed_head(data: bytes, colours: Sequence[Rgb]) -> bytes:
    """The signature, the header and the palette of a PNG of the same size and depth."""
    header = data[16:COLOUR_TYPE] + bytes([INDEXED]) + data[COLOUR_TYPE + 1 : HEAD - 4]
    table = bytes(part for colour in colours for part in colour)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"PLTE", table)
