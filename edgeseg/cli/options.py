"""Options that several commands have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any

import typer
from pydantic import Field

from edgeseg.options.base import Option

Json = Annotated[bool, Option("Print one JSON document on stdout.", names="--json")]
Overwrite = Annotated[bool, Option("Replace existing outputs.", names="--overwrite")]
Network = Annotated[
    Path | None, typer.Argument(help="ONNX network or run folder; default: the newest run.")
]
MaxPixels = Annotated[
    int | None,
    Field(ge=1),
    Option(
        "Maximum number of pixels in a picture, which limits memory; default: 268435456 "
        "(16384x16384).",
        envvar="EDGESEG_MAX_PIXELS",
    ),
]


def on_demand(name: str) -> Callable[..., Any]:
    """Return a function that imports ``module:name`` when it is called, and calls it."""

    def call(*arguments: Any) -> Any:
        return resolve_name(name)(*arguments)

    return call


def accepted_by(name: str) -> Callable[[str], str]:
    """Return a parser that keeps each text which the function ``module:name`` accepts."""
    parse = on_demand(name)

    def checked(text: str) -> str:
        parse(text)
        return text

    return checked


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
