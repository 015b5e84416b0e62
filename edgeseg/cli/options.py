"""Options shared by several commands, and parsers for their values."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.errors import UsageError

Size = tuple[int, int]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Number of CPU threads; default: the runtime's choice.")
]
Data = Annotated[
    Path,
    typer.Option(help="Data set: {train,val}/{images,masks|instances}, PASCAL VOC or Cityscapes."),
]
OptionalData = Annotated[
    Path | None, typer.Option(help="Labelled pictures: {train,val}/{images,masks|instances}.")
]
Network = Annotated[
    Path | None, typer.Argument(help="ONNX network or run folder; default: the newest run.")
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="EDGESEG_MAX_PIXELS",
        show_envvar=False,
        help="Maximum number of pixels in a picture, which limits memory; default: 268435456 "
        "(16384x16384), or EDGESEG_MAX_PIXELS.",
    ),
]
SplitName = Annotated[str, typer.Option(help="Split of --data to use: train, val or test.")]
Credentials = Annotated[
    Path | None,
    typer.Option(help="netrc file (mode 600) with logins for cameras whose URL has none."),
]
Authority = Annotated[
    Path | None,
    typer.Option(
        "--ca", metavar="FILE", help="Additional CA certificates (PEM) to trust for TLS cameras."
    ),
]
InsecureCameras = Annotated[
    list[str] | None,
    typer.Option(
        "--insecure-camera",
        metavar="HOST[:PORT]",
        help="Accept any TLS certificate from this camera; repeatable.",
    ),
]
MaxFramePixels = Annotated[
    int | None,
    typer.Option(min=1, help="Drop frames with more pixels than this; default: 178,956,970."),
]


def allow_pixels(count: int | None) -> None:
    """Set the maximum number of pixels per picture for this process and its children.

    Call this before OpenCV is imported, which reads its own limit (2³⁰) only once, at import.
    None leaves :func:`edgeseg.data.headers.pixel_limit` unchanged.
    """
    if count is None:
        return
    os.environ["EDGESEG_MAX_PIXELS"] = str(count)
    if count > 1 << 30:
        os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(count))


def height_width(option: str, text: str) -> tuple[int, int]:
    """Parse ``WIDTHxHEIGHT`` into (height, width); raises UsageError if malformed."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"{option} takes WIDTHxHEIGHT, e.g. 512x256, not {text!r}")
    return int(height), int(width)


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


def byte_size(option: str, text: str) -> int:
    """Parse ``500MB``, ``1.5 GiB`` or a plain number into bytes; raises UsageError if malformed."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z]*)", text.strip())
    unit = _BYTES.get(match[2].lower()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise UsageError(f"{option} takes a size, e.g. 500MB or 2GiB, not {text!r}")
    return size


def batch_profile(option: str, text: str | None) -> tuple[int, int, int] | None:
    """Parse batch sizes ``SMALLEST:TYPICAL:LARGEST``; raises UsageError if malformed."""
    if text is None:
        return None
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"{option} takes SMALLEST:TYPICAL:LARGEST, e.g. 1:1:8, not {text!r}")
    smallest, typical, largest = map(int, parts)
    return smallest, typical, largest


def size_profile(option: str, text: str | None) -> tuple[Size, Size, Size] | None:
    """Parse ``SMALLEST:TYPICAL:LARGEST``, each ``WIDTHxHEIGHT``, into three (height, width).

    Raises UsageError if malformed.
    """
    if text is None:
        return None
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(
            f"{option} takes SMALLEST:TYPICAL:LARGEST, e.g. 256x128:512x256:1024x512, not {text!r}"
        )
    smallest, typical, largest = (height_width(option, part) for part in parts)
    return smallest, typical, largest


def counts(option: str, text: str | None) -> tuple[int, ...]:
    """Parse ``1,2,4`` into sorted, unique integers ≥ 1; None gives an empty tuple."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise UsageError(f"{option} takes whole numbers from 1 on, e.g. 1,2,4, not {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    """Return ``value`` if it is in ``allowed``; otherwise raise UsageError."""
    if value not in allowed:
        raise UsageError(f"{option} takes {', '.join(allowed)}, not {value!r}")
    return value
