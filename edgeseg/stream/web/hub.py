"""The newest result of each source, between the stream's thread and those who look.

The stream leaves a reference and continues. A result is encoded on request, once for all
who ask; each client asks for the next picture when it has the last, so that a slow one sees
fewer and delays no one.
"""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.ops.preprocess import inside
from edgeseg.stream.result import StreamResult

_QUALITY = 80


def encode(number: int, result: StreamResult, largest: int) -> bytes:
    """Encode a result for browsers, which lay the label map over the picture themselves.

    A packet has the length of the header (uint32, little endian), the header (JSON), the picture
    (JPEG) and the label map (zlib, RFC 1950). The header has ``camera``, ``number`` (of the
    packet, by which the next is asked for), ``frame`` (number in the source), ``age_ms`` (from
    capture to labels), ``width``, ``height`` (of the picture as sent), ``columns``, ``rows`` (of
    the label map: the part of the network's that lies on the picture, a letterbox cut off, uint8
    class ids row by row), ``shares`` (of the picture's area, one a class), ``jpeg``, ``labels``
    (bytes).

    Args:
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


@dataclass
class _Camera:
    """``encoded`` belongs to the event loop's thread, ``newest`` is swapped by the stream's."""

    newest: tuple[int, StreamResult] | None = None
    encoded: asyncio.Future[bytes] | None = None
    encoded_number: int = 0


class Hub:
    """Where results are left and asked for.

    Args:
        encode: Called with the number of a packet and its result, in a thread of its own.
    """

    def __init__(
        self, cameras: Iterable[int], encode: Callable[[int, StreamResult], bytes]
    ) -> None:
        self._cameras = {camera: _Camera() for camera in cameras}
        self._encode = encode
        self._encoder = ThreadPoolExecutor(1, "edgeseg web encoder")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False

    def put(self, result: StreamResult) -> None:
        """Leave a result, in the stream's thread: costs a reference, and a wake-up if one waits."""
        camera = self._cameras[result.camera]
        camera.newest = (camera.newest[0] + 1 if camera.newest else 1, result)
        self._wake_up()

    def close(self) -> None:
        """Let those who wait go, with nothing; from any thread."""
        self._closed = True
        self._wake_up()
        self._encoder.shutdown(wait=False)

    async def news(self, seen: Mapping[int, int], timeout: float) -> list[int]:
        """Sources whose newest packet is another than the one seen.

        Args:
            seen: Source → number of the packet seen last, 0 for none; other sources are not
                waited for.
            timeout: Seconds after which the list may be empty.
        """
        self._loop = loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not self._closed:
            changed: asyncio.Future[None] = loop.create_future()
            # Entered before looking: a result that is left in between wakes it up.
            self._waiting.add(changed)
            try:
                found = [index for index, number in seen.items() if self._number(index) != number]
                if found:
                    return found
                await asyncio.wait_for(changed, deadline - loop.time())
            except asyncio.TimeoutError:
                break
            finally:
                self._waiting.discard(changed)
        return []

    async def packet(self, index: int) -> bytes:
        """The newest packet of a source, or the one that is being made; empty where there is none.

        The one that is being made is news to all who ask: it is newer than any that was sent.
        """
        camera = self._cameras[index]
        if camera.newest is None or self._closed:
            return b""
        number, result = camera.newest
        making = camera.encoded
        if making is None or (making.done() and camera.encoded_number != number):
            loop = asyncio.get_running_loop()
            making = loop.run_in_executor(self._encoder, self._encode, number, result)
            camera.encoded, camera.encoded_number = making, number
        return await asyncio.shield(making)  # one client that goes away must not cancel it

    def _number(self, index: int) -> int:
        newest = self._cameras[index].newest
        return 0 if newest is None else newest[0]

    def _wake_up(self) -> None:
        if self._waiting and self._loop is not None:
            self._loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        for changed in self._waiting:
            if not changed.done():
                changed.set_result(None)
