"""Overlap-tile: pictures of any size through a network of fixed size, without seams.

Ronneberger, Fischer and Brox, "U-Net" (MICCAI 2015), figure 2. The picture is cut into tiles
that overlap; of each answer only the middle is kept, which has seen enough on all sides. What
a tile lacks beyond the picture is extrapolated by mirroring.

The result is that of the whole picture in one pass if ``margin`` covers what the network sees
around a pixel, and tiles start at multiples of its ``stride``, so that pooling falls into the
same windows. Valid convolutions hold to the first by construction. A network that pads needs a
margin of half its receptive field for the last bit (UNetLite of depth 4: 122); most of that
matters little, see ``edgeseg infer --margin``. As near as that to the picture's own rim the two
differ anyway: tiles mirror there, and the whole picture is padded with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError

Predict = Callable[[NDArray[Any]], NDArray[Any]]
"""Tiles (N, C, height, width) → logits (N, K, h, w) or labels (N, h, w)."""


def predict_tiled(
    predict: Predict,
    image: NDArray[Any],
    *,
    tile: tuple[int, int],
    margin: int,
    stride: int = 1,
    batch: int = 1,
) -> NDArray[Any]:
    """Predict a whole picture by stitching predictions of overlapping tiles.

    Args:
        predict: Answers tiles of the picture's dtype, either for the whole tile, of which the
            margin is then cut off here, or for what a valid network leaves of it, the tile
            without its margin. It is always given ``batch`` tiles, the last one repeated
            where there are not that many left, so that engines of a fixed batch will do.
        image: (C, H, W), preprocessed for the network or not, as ``predict`` expects it.
        tile: (height, width) of a tile, margin included.
        margin: Pixels of a tile on each side whose answers are not used.
        stride: Tiles start at multiples of it: the network's, or a multiple of that. The
            margin of a network that pads is best a multiple of it as well.
        batch: Tiles per call of ``predict``.

    Returns:
        Logits (K, H, W) or labels (H, W), of the dtype that ``predict`` gives.

    Raises:
        UsageError: The picture is empty, the tile has no room for a step of ``stride`` between
            its margins, or ``predict`` answers in another size.
    """
    if image.ndim != 3 or not image.size:
        raise UsageError(f"a picture to tile has shape (C, H, W) and pixels, not {image.shape}")
    if min(margin, stride - 1, batch - 1) < 0:
        raise UsageError(f"margin {margin}, stride {stride}, batch {batch}: one is too small")
    height, width = image.shape[1:]
    inner = tile[0] - 2 * margin, tile[1] - 2 * margin
    corners = product(_starts(height, inner[0], stride), _starts(width, inner[1], stride))
    result: NDArray[Any] | None = None
    while group := list(islice(corners, batch)):
        tiles = [cut(image, (top - margin, left - margin), tile) for top, left in group]
        answers = predict(np.stack(tiles + tiles[-1:] * (batch - len(group))))
        answers = _without_margin(answers, tile, margin)
        if result is None:
            result = np.empty((*answers.shape[1:-2], height, width), answers.dtype)
        for (top, left), answer in zip(group, answers, strict=False):
            target = result[..., top : top + inner[0], left : left + inner[1]]
            target[...] = answer[..., : target.shape[-2], : target.shape[-1]]
    assert result is not None
    return result


def mirrored(start: int, stop: int, size: int) -> NDArray[np.int64]:
    """Return the pixel index in a mirrored line of ``size`` for ``start`` up to ``stop``.

    Outside 0…size-1 the line is mirrored at its first and its last pixel, which are not
    repeated, as often as it takes: ``mirrored(-3, 5, 3)`` is 1, 2, 1, 0, 1, 2, 1, 0.
    """
    period = max(2 * (size - 1), 1)
    places = np.arange(start, stop) % period
    return np.where(places < size, places, period - places)


def _starts(size: int, inner: int, stride: int) -> Iterator[int]:
    """Yield the starts of the tiles' kept centres, so that they cover 0…size-1."""
    step = inner // stride * stride
    if step < 1:
        raise UsageError(
            f"a tile keeps {inner} pixels between its margins, fewer than the stride of {stride}",
            hint="take larger tiles or a smaller margin",
        )
    return iter(range(0, max(size - inner, 0) + step, step))


def cut(image: NDArray[Any], corner: tuple[int, int], tile: tuple[int, int]) -> NDArray[Any]:
    """Cut out the ``tile`` (height, width) of a picture (…, H, W) that starts at ``corner``.

    What lies beyond the picture is mirrored.
    """
    rows, columns = (
        mirrored(start, start + side, size)
        for start, side, size in zip(corner, tile, image.shape[-2:], strict=True)
    )
    return image[..., rows, :][..., columns]  # in two steps, which is quicker than in one


def cover(size: tuple[int, int], tile: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the corners of the fewest tiles that cover a picture of ``size``, evenly spread.

    They overlap where the size is not a multiple of the tile's. A smaller picture takes one tile.
    """
    starts = (
        np.linspace(0, max(whole - side, 0), -(-whole // side)).astype(int).tolist()
        for whole, side in zip(size, tile, strict=True)
    )
    return list(product(*starts))


def _without_margin(answers: NDArray[Any], tile: tuple[int, int], margin: int) -> NDArray[Any]:
    inner = tuple(side - 2 * margin for side in tile)
    if answers.shape[-2:] == inner:
        return answers
    if answers.shape[-2:] == tile:
        return answers[..., margin : margin + inner[0], margin : margin + inner[1]]
    raise UsageError(
        f"a tile of {tile} with a margin of {margin} is answered in {tile} or {inner}, "
        f"not {answers.shape[-2:]}"
    )
