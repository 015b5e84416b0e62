"""What a browser is sent of a frame: the picture as JPEG and the label map beside it.

The browser lays one over the other itself, so that opacity and classes change at once. One
packet is::

    uint32, little endian     length of the header
    header                    JSON, see :func:`encode`
    picture                   JPEG, ``jpeg`` bytes
    label map                 zlib (RFC 1950), ``labels`` bytes
"""

from __future__ import annotations

import json
import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.ops.preprocess import inside
from edgeseg.stream.result import StreamResult

_QUALITY = 80


def encode(number: int, result: StreamResult, largest: int) -> bytes:
    """The packet of a result.

    Its header has ``camera``, ``number`` (of the packet, by which the next is asked for),
    ``frame`` (number in the source), ``age_ms`` (from capture to labels), ``width``, ``height``
    (of the picture as sent), ``columns``, ``rows`` (of the label map: the part of the network's
    that lies on the picture, a letterbox cut off, uint8 class ids row by row), ``shares``
    (of the picture's area, one a class), ``jpeg``, ``labels`` (bytes).

    Args:
        number: Number of the packet.
        result: Its arrays are read only.
        largest: Side in pixels beyond which the picture is scaled down.
    """
    frame = _at_most(result.frame, largest)
    jpeg = cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
    part = inside(result.labels, result.frame.shape[:2], result.input)
    labels = zlib.compress(part.tobytes(), 1)
    pixels = result.frame.shape[0] * result.frame.shape[1]
    header = json.dumps(
        {
            "camera": result.camera,
            "number": number,
            "frame": result.index,
            "age_ms": round(result.age_ms, 1),
            "width": frame.shape[1],
            "height": frame.shape[0],
            "columns": part.shape[1],
            "rows": part.shape[0],
            "shares": [round(area / pixels, 5) for area in result.areas().tolist()],
            "jpeg": len(jpeg),
            "labels": len(labels),
        }
    ).encode()
    return b"".join((struct.pack("<I", len(header)), header, jpeg, labels))


def _at_most(frame: NDArray[np.uint8], largest: int) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    scale = largest / max(height, width)
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
