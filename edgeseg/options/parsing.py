"""Parse the texts of options; each function raises UsageError if its text is malformed."""

from __future__ import annotations

import re
from pathlib import Path

from edgeseg.errors import UsageError

Size = tuple[int, int]
"""(height, width)"""
Range = tuple[float, float]
"""(lowest, highest)"""

_BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def height_width(text: str) -> Size:
    """Parse ``WIDTHxHEIGHT`` into (height, width)."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"expected WIDTHxHEIGHT, e.g. 512x256, not {text!r}")
    return int(height), int(width)


def width_height(size: Size) -> str:
    """Format (height, width) as ``WIDTHxHEIGHT``."""
    return f"{size[1]}x{size[0]}"


def positive_range(text: str) -> Range | None:
    """Parse ``LOWEST-HIGHEST``, both above 0, or ``none``."""
    if text == "none":
        return None
    number = r"(\d{1,9}(?:\.\d{1,9})?)"
    match = re.fullmatch(f"{number}-{number}", text.strip())
    limits = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if not 0 < limits[0] <= limits[1]:
        raise UsageError(f"expected LOWEST-HIGHEST above 0, e.g. 0.5-2, or none, not {text!r}")
    return limits


def range_text(limits: Range | None) -> str:
    """Format (lowest, highest) as ``LOWEST-HIGHEST``, None as ``none``."""
    return "none" if limits is None else f"{limits[0]:g}-{limits[1]:g}"


def byte_size(text: str) -> int:
    """Parse ``500MB``, ``1.5 GiB`` or a plain number into bytes."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z]*)", text.strip())
    unit = _BYTES.get(match[2].lower()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise UsageError(f"expected a size, e.g. 500MB or 2GiB, not {text!r}")
    return size


def size_text(size: int) -> str:
    """Format bytes so that :func:`byte_size` reads the same number."""
    return f"{size // 10**6}MB" if size % 10**6 == 0 else str(size)


def batch_profile(text: str) -> tuple[int, int, int]:
    """Parse batch sizes ``SMALLEST:TYPICAL:LARGEST``."""
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"expected SMALLEST:TYPICAL:LARGEST, e.g. 1:1:8, not {text!r}")
    smallest, typical, largest = map(int, parts)
    return smallest, typical, largest


def size_profile(text: str) -> tuple[Size, Size, Size]:
    """Parse ``SMALLEST:TYPICAL:LARGEST``, each ``WIDTHxHEIGHT``, into three (height, width)."""
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(
            f"expected SMALLEST:TYPICAL:LARGEST, e.g. 256x128:512x256:1024x512, not {text!r}"
        )
    smallest, typical, largest = map(height_width, parts)
    return smallest, typical, largest


def counts(text: str) -> tuple[int, ...]:
    """Parse ``1,2,4`` into sorted, unique integers ≥ 1."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise UsageError(f"expected whole numbers from 1 on, e.g. 1,2,4, not {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def split_zone(text: str) -> tuple[Path, int | None]:
    """Parse ``ZONE.json`` or ``ZONE.json on SOURCE`` into a file and the number of a source."""
    match = re.fullmatch(r"(\S.*?)(?:\s+on\s+(\d{1,4}))?\s*", text, re.ASCII)
    if match is None or "\0" in text:
        raise UsageError(f"expected the file of a zone, e.g. 'door.json on 0', not {text!r}")
    return Path(match[1]), None if match[2] is None else int(match[2])
