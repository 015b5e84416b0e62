"""Pictures and frames of any size at their own scale, in overlapping tiles of an engine's size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import InputSpec, ModelCard
from edgeseg.engines.base import Engine
from edgeseg.engines.pipeline import Image, PipelineResult, ProcessorPipeline
from edgeseg.errors import UsageError
from edgeseg.ops.overlay import Look, overlay_restored
from edgeseg.ops.preprocess import preprocess
from edgeseg.tiling import predict_tiled

_GRID = 32  # The coarsest resolution of a network here, in pixels, with default options.


def segment_tiled(
    engine: Engine,
    image: NDArray[np.uint8],
    margin: int | None = None,
    *,
    batch: int = 1,
    infer: Callable[[NDArray[np.float32]], NDArray[np.uint8]] | None = None,
) -> NDArray[np.uint8]:
    """Segment one picture at its own scale, in overlapping tiles of the engine's size.

    ``engine.segment`` does so for networks whose card says ``tiles``, and resizes the whole
    picture to the network's input for others.

    Args:
        engine: The network.
        image: uint8 (H, W, 3) BGR or (H, W) grey, as OpenCV reads it, of any size.
        margin: Pixels of a tile on each side whose labels are not used; None takes
            :func:`default_margin`, or 0 for a picture that fits in one tile.
        batch: Tiles per call of an engine whose batch size is not fixed.
        infer: Called instead of ``engine.infer``, e.g. to take its time.

    Returns:
        uint8 (H, W), class ids.

    Raises:
        UsageError: The margins are too large for the tile.
    """
    spec = engine.card.input
    if margin is None:
        fits = image.shape[0] <= spec.height and image.shape[1] <= spec.width
        margin = 0 if fits else default_margin(spec)
    infer = infer or engine.infer

    def predict(tiles: NDArray[Any]) -> NDArray[np.uint8]:
        pictures = np.ascontiguousarray(np.moveaxis(tiles, 1, -1))
        return infer(np.stack([preprocess(picture, spec) for picture in pictures]))

    inner = max(min(spec.height, spec.width) - 2 * margin, 1)
    return predict_tiled(
        predict,
        np.moveaxis(np.atleast_3d(image), -1, 0),
        tile=(spec.height, spec.width),
        margin=margin,
        # Tiles too small for the grid take the next finer one.
        stride=min(_GRID, 1 << (inner.bit_length() - 1)),
        batch=engine.capabilities.batch or batch,
    )


def default_margin(spec: InputSpec) -> int:
    """An eighth of a tile's shorter side, in whole pixels.

    A compromise: a network that pads gives the whole picture's labels only from half its
    receptive field on, but what lies that far off counts for little, and each pixel of margin
    is computed twice or more. The valid ``unet`` of depth 4 is exact with 96, the multiple of
    its stride that covers its own margin.
    """
    return min(spec.height, spec.width) // 8


class TiledPipeline(ProcessorPipeline):
    """Labels of frames by :func:`segment_tiled`, at the frames' own size.

    Tiles are cut and preprocessed on the processor, whatever the engine runs on.

    Args:
        margin: As for :func:`segment_tiled`.
        batch: Tiles per call; an engine that takes no such batches gets as many as it takes.

    Raises:
        UsageError: The margins leave nothing of a tile.
    """

    def __init__(self, engine: Engine, margin: int | None = None, batch: int = 1) -> None:
        super().__init__(engine)
        spec = engine.card.input
        if margin is not None and 2 * margin >= min(spec.height, spec.width):
            raise UsageError(
                f"tiles of {spec.width}x{spec.height} have no pixel between margins of {margin}",
                hint="take a smaller margin",
            )
        self._margin = margin
        self._batch = min(batch, engine.capabilities.max_batch or batch)

    def _segment(self, frames: Sequence[Image], look: Look | None) -> PipelineResult:
        start = time.perf_counter()
        inferring = 0.0

        def infer(tensor: NDArray[np.float32]) -> NDArray[np.uint8]:
            nonlocal inferring
            begin = time.perf_counter()
            found = self._engine.infer(tensor)
            inferring += time.perf_counter() - begin
            return found

        labels = [
            segment_tiled(self._engine, frame, self._margin, batch=self._batch, infer=infer)
            for frame in frames
        ]
        whole = time.perf_counter() - start
        painted = None
        if look is not None:
            painted = [
                overlay_restored(frame, each, tiled_card(self._engine.card, frame).input, look)
                for frame, each in zip(frames, labels, strict=True)
            ]
        times = {"preprocess": (whole - inferring) * 1000, "infer": inferring * 1000}
        return PipelineResult(labels, painted, times)


def tiled_card(card: ModelCard, frame: Image) -> ModelCard:
    """Return the card of a network that takes the frame as it is: so its labels are read."""
    height, width = frame.shape[:2]
    size = {
        "height": height,
        "width": width,
        "resize": "stretch",
        "open_size": None,
        "tiles": False,
    }
    return card.model_copy(update={"input": card.input.model_copy(update=size)})
