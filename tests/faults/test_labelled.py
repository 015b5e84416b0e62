"""A real RTSP camera whose right answer is known: the live score is that of its decoded frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.engines.base import Engine
from edgeseg.evaluation import score
from edgeseg.stream import Scoring, Stream, StreamOptions, run

FRAMES = 20
EVERY = StreamOptions(realtime=False, max_frames=FRAMES)


@pytest.fixture
def decoded(numbered: Path) -> list[NDArray[np.uint8]]:
    """The first frames of the camera's video as OpenCV decodes them from the file."""
    capture = cv2.VideoCapture(str(numbered), cv2.CAP_FFMPEG)
    return [np.asarray(capture.read()[1], np.uint8) for _ in range(FRAMES)]


@pytest.fixture
def masks(tmp_path: Path, decoded: list[NDArray[np.uint8]]) -> Callable[[int], Path]:
    """``masks(shift)``: bright where the frame is, ``shift`` frames late, wrong in places."""

    def make(shift: int) -> Path:
        folder = tmp_path / f"masks-{shift}"
        folder.mkdir()
        for index in range(FRAMES):
            mask = (decoded[(index + shift) % FRAMES][..., 1] > 127).astype(np.uint8)
            mask[:index] ^= 1
            cv2.imwrite(str(folder / f"{index:02d}.png"), mask)
        return folder

    return make


def test_the_live_score_is_that_of_the_decoded_frames(
    rtsp_camera: Any,
    masks: Callable[[int], Path],
    decoded: list[NDArray[np.uint8]],
    grey_engine: Engine,
) -> None:
    right, late = masks(0), masks(1)
    both = [Scoring(folder, grey_engine.card.classes) for folder in (right, late)]
    run(Stream(rtsp_camera.url, grey_engine, EVERY), both)
    truth = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(right.iterdir())]
    expected = score(grey_engine, zip(decoded, truth, strict=True)).to_dict()
    live, shifted = (scoring.to_dict() for scoring in both)
    assert live is not None
    assert shifted is not None
    assert live["frames"] == FRAMES
    for name in ("mean_iou", "pixel_accuracy", "per_class"):
        assert live[name] == expected[name]
        assert shifted[name] != expected[name]  # a frame more or less would be seen
