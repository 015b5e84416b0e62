"""Measure weight maps per second: ``python bench/border_weights.py``.

Uses 512×512 pictures with 100 drawn nuclei each, one thread, and CPU time, which excludes other
load on the machine. Training computes a map for each picture, so this must outpace the network.
"""

import statistics
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.instances import border_weights

SIZE, NUCLEI, PICTURES = 512, 100, 20


def drawn_nuclei(rng: np.random.Generator) -> NDArray[np.int32]:
    """Ellipses of 14 to 40 pixels on a jittered grid, some of which touch; int32 (SIZE, SIZE)."""
    picture = np.zeros((SIZE, SIZE), np.int32)
    places = np.stack(np.meshgrid(np.arange(10), np.arange(10)), -1).reshape(-1, 2) * 51 + 25
    for label, place in enumerate(places[:NUCLEI], 1):
        centre = (place + rng.integers(-8, 9, 2)).tolist()
        axes = rng.integers(7, 21, 2).tolist()
        cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, label, -1)
    return picture


def main() -> None:
    """Print pictures a second and what a picture held."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    pictures = [drawn_nuclei(rng) for _ in range(PICTURES)]
    border_weights(pictures[0])
    seconds = []
    for picture in pictures:
        start = time.process_time()
        border_weights(picture)
        seconds.append(time.process_time() - start)
    nuclei = statistics.mean(len(np.unique(picture)) - 1 for picture in pictures)
    covered = statistics.mean(float((picture > 0).mean()) for picture in pictures)
    print(
        f"{1 / statistics.median(seconds):.0f} pictures/s "
        f"({statistics.median(seconds) * 1e3:.1f} ms each, median of {PICTURES}; {SIZE}×{SIZE}, "
        f"{nuclei:.0f} nuclei that cover {covered:.0%}, CPU time of one thread)"
    )


if __name__ == "__main__":
    main()
