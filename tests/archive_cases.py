"""Videos to read in ranges."""

from collections.abc import Container
from pathlib import Path

import av
import numpy as np


def make_video(path: Path, frames: int, *, dropped: Container[int] = ()) -> Path:
    """H.264 of 96x64 pixels with B-frames and a key frame every 12; each frame looks different."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(frames):
            picture = np.roll(noise, number, axis=1).repeat(8, 0).repeat(8, 1)
            picture[:8, : 8 * (number % 12 + 1)] = number % 256
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            if number not in dropped:
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
