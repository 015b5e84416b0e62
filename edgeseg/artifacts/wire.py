"""Read the protobuf wire format without the protobuf library.

See https://protobuf.dev/programming-guides/encoding/. Input may be hostile: nothing is copied, each
field's extent lies inside its message, and the number of fields is bounded, so neither time nor
memory depends on sizes that the input claims.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

Buffer = bytes | mmap.mmap

MAX_FIELDS = 1_000_000
"""Maximum fields per file. An exported FCN-8s has some thousands, one per weight tensor."""


class Field(NamedTuple):
    """One field: its number, the extent of its bytes, and its value if it is a varint."""

    number: int
    start: int
    stop: int
    value: int | None


class WireReader:
    """Iterates over the fields of the messages in a buffer."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self._left = MAX_FIELDS

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """Yield the fields of the message from ``start`` to ``stop``.

        Raises:
            ValueError: The message is invalid or truncated, or the file has too many fields.
        """
        place = start
        while place < stop:
            self._count()
            tag, place = self._varint(place, stop)
            number, kind = tag >> 3, tag & 7
            value: int | None = None
            length = 0
            if number == 0:
                raise ValueError("no protobuf message, field number 0")
            if kind == 0:
                value, place = self._varint(place, stop)
            elif kind == 1:
                length = 8
            elif kind == 2:
                length, place = self._varint(place, stop)
            elif kind == 5:
                length = 4
            else:
                raise ValueError(f"no protobuf message, wire type {kind}")
            if place + length > stop:
                raise ValueError("cut short")
            yield Field(number, place, place + length, value)
            place += length

    def text(self, field: Field, limit: int) -> str:
        """Decode a field as UTF-8, replacing bad bytes; ValueError if longer than ``limit``."""
        if field.stop - field.start > limit:
            raise ValueError(f"a text of {field.stop - field.start} bytes")
        return self.data[field.start : field.stop].decode(errors="replace")

    def varints(self, field: Field) -> Iterator[int]:
        """Yield the numbers of a repeated integer field, packed or not."""
        if field.value is not None:
            yield field.value
            return
        place = field.start
        while place < field.stop:
            self._count()
            value, place = self._varint(place, field.stop)
            yield value

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("more fields than any network has")

    def _varint(self, place: int, stop: int) -> tuple[int, int]:
        value = shift = 0
        while place < stop and shift < 64:
            byte = self.data[place]
            value |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                return value, place
        raise ValueError("cut short")
