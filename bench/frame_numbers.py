"""Write frame numbers into pictures, as sixteen black or white fields along the top edge.

The number of a frame can be read back after any lossy codec. Uses only NumPy, so that it runs in
the peers' environments.
"""

import numpy as np
from numpy.typing import NDArray

BITS = 16
RIM = 24
"""Height of the fields, pixels."""


def mark(frame: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Write ``number`` into the rim of ``frame``, uint8 (H, W, 3), in place."""
    width = frame.shape[1] // BITS
    for bit in range(BITS):
        frame[:RIM, bit * width : (bit + 1) * width] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: NDArray[np.uint8]) -> int:
    """The number that :func:`mark` wrote."""
    width = frame.shape[1] // BITS
    fields = [frame[RIM // 4 : RIM // 2, (2 * bit + 1) * width // 2] for bit in range(BITS)]
    return sum(int(field.mean() > 127) << bit for bit, field in enumerate(fields))
