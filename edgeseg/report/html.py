"""Render a report as one HTML file: no script, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edgeseg import __version__
from edgeseg.errors import CorruptArtifact, UsageError, needed
from edgeseg.report.contents import Picture
from edgeseg.report.tree import Page

MAX_PICTURE_BYTES = 1_900_000
"""All pictures together; base64 adds a third, and the page is to stay below 3 MB."""

_STEPS = ((1400, 85), (1000, 80), (720, 78), (480, 75), (320, 70))


def fit(pictures: Sequence[Picture], budget: int = MAX_PICTURE_BYTES) -> tuple[Picture, ...]:
    """The pictures as they are if they fit into ``budget`` bytes, else as smaller JPEG files.

    Raises:
        CorruptArtifact: One is not a picture.
        UsageError: There are too many even for thumbnails.
    """
    for picture in pictures:
        media_type(picture)
    fitted = tuple(pictures)
    for width, quality in _STEPS:
        if _total(fitted) <= budget:
            return fitted
        fitted = tuple(_smaller(picture, width, quality) for picture in pictures)
    if _total(fitted) > budget:
        raise UsageError(
            f"{len(fitted)} pictures are too many for one page, even as thumbnails",
            hint="give fewer pictures",
        )
    return fitted


def data_uri(picture: Picture) -> str:
    """``data:image/png;base64,…``; raises as :func:`media_type`."""
    return f"data:{media_type(picture)};base64,{base64.b64encode(picture.data).decode()}"


def media_type(picture: Picture) -> str:
    """``image/png`` or ``image/jpeg``, by the first bytes.

    Raises:
        CorruptArtifact: It is neither.
    """
    if picture.data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if picture.data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    raise CorruptArtifact(f"picture {picture.title!r}: expected the bytes of a PNG or JPEG file")


def _total(pictures: Sequence[Picture]) -> int:
    return sum(len(picture.data) for picture in pictures)


def _smaller(picture: Picture, width: int, quality: int) -> Picture:
    pixels = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise CorruptArtifact(f"picture {picture.title!r} cannot be decoded")
    if pixels.shape[1] > width:
        size = width, max(1, round(pixels.shape[0] * width / pixels.shape[1]))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return replace(picture, data=encoded.tobytes())


def render_html(page: Page) -> str:
    """The whole page.

    Raises:
        RuntimeMissing: Matplotlib or Jinja are not installed.
        CorruptArtifact: A picture is neither PNG nor JPEG.
    """
    with needed("reports need", "report"):
        import jinja2
        from markupsafe import Markup
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
    )
    environment.filters |= {
        "kind": lambda block: type(block).__name__,
        "data_uri": data_uri,
        # Our own SVG, whose text Matplotlib has escaped.
        "svg": lambda plot: Markup(plot.svg()),
    }
    template = environment.get_template("page.html.j2")
    return template.render(page=page, version=__version__) + "\n"
