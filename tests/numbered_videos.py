"""Videos whose frames show their number, whole and damaged."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FPS = 128, 64, 25
TICK = Fraction(1, 1000)
CODECS = {"h": "libx264", "m": "mpeg4", "j": "mjpeg", "v": "libvpx"}
OPTIONS = {"h": {"g": "12", "bf": "2"}, "m": {"g": "12", "b": "2M"}, "v": {"g": "12", "b": "1M"}}


def numbered_frame(number: int) -> NDArray[np.uint8]:
    """Eight bars, dark or bright as the bits of ``number``, over noise; uint8 (64, 128, 3)."""
    noise = np.random.default_rng(number).integers(100, 140, (HEIGHT, WIDTH, 3))
    picture = noise.astype(np.uint8)
    for bit in range(8):
        picture[:32, 16 * bit : 16 * (bit + 1)] = 230 if number >> bit & 1 else 20
    return picture


def number_of(frame: NDArray[np.uint8]) -> int:
    """What :func:`numbered_frame` drew."""
    bars = frame[4:28].reshape(24, 8, 16, 3)[:, :, 4:12].mean((0, 2, 3))
    return sum(1 << bit for bit in range(8) if bars[bit] > 125)


def make_numbered(
    path: Path,
    kind: str = "h",
    count: int = 60,
    times: Sequence[float] | None = None,
    restamp: Callable[[int, av.Packet], None] | None = None,
) -> Path:
    """A video by PyAV.

    Args:
        path: Its suffix names the container.
        kind: Key of ``CODECS``.
        count: Frames.
        times: Seconds at which the frames are shown; None: 25 a second.
        restamp: Changes a packet, given its number in the order of decoding.
    """
    tick = Fraction(1, FPS) if times is None else TICK
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[kind], rate=FPS, options=OPTIONS.get(kind, {}))
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if kind == "j" else "yuv420p"
        stream.codec_context.time_base = tick
        packets = []
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="bgr24")
            frame.pts = number if times is None else round(times[number] * 1000)
            frame.time_base = tick
            packets += stream.encode(frame)
        packets += stream.encode()
        for number, packet in enumerate(packets):
            if restamp is not None:
                restamp(number, packet)
            container.mux(packet)
    return path


def damage(path: Path, how: str) -> Path:
    """A copy with bytes in the middle overwritten, ``cut`` out, or all behind them missing."""
    data = bytearray(path.read_bytes())
    at, length = len(data) * 45 // 100, len(data) * 7 // 100
    if how == "zero":
        data[at : at + length] = bytes(length)
    elif how == "noise":
        data[at : at + length] = np.random.default_rng(0).bytes(length)
    elif how == "cut":
        del data[at : at + length]
    else:
        assert how == "truncated"
        del data[at:]
    broken = path.with_name(f"{how}-{path.name}")
    broken.write_bytes(data)
    return broken
