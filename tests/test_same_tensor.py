"""Train, eval, calibrate and stream feed the network bit-equal tensors for the same picture."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.artifacts.card import InputSpec, ModelCard
from edgeseg.data.folders import Split, read_split
from edgeseg.engines.base import Capabilities, Engine

SPECS = [
    InputSpec(height=64, width=96),
    InputSpec(height=200, width=120, resize="letterbox", color="bgr"),
    InputSpec(height=48, width=48, color="gray", mean=(0.4,), std=(0.2,)),
    InputSpec(height=40, width=56, reduce="area"),
]


class Listening(Engine):
    """Keeps what it is fed; all pixels are class 0."""

    def __init__(self, split: Split, spec: InputSpec) -> None:
        self.card = ModelCard(name="n", arch="unet-lite", classes=split.classes, input=spec)
        self.path, self.runtime = Path("listening.onnx"), "none"
        self.capabilities = Capabilities(batch=1)
        self.heard: list[NDArray[np.float32]] = []

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        self.heard.append(batch[0].copy())
        return np.zeros((1, *self.card.input.shape[1:]), np.uint8)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("spec", SPECS, ids=["stretch", "letterbox", "gray", "area"])
def test_bit_equal(spec: InputSpec, small_data: Path) -> None:
    from edgeseg.data.loader import training_tensor
    from edgeseg.evaluation import evaluate
    from edgeseg.precision.ranges import calibration_tensor
    from edgeseg.stream import Stream

    split = read_split(small_data, "val")
    trained = [training_tensor(sample, split.classes, spec)[0] for sample in split]
    calibrated = [calibration_tensor(sample.image, spec) for sample in split]
    evaluating, streaming = Listening(split, spec), Listening(split, spec)
    evaluate(evaluating, split)
    with Stream(small_data / "val" / "images", streaming) as stream:
        streamed = len(list(stream))
    assert streamed == len(split)
    evaluated, streamed_tensors = evaluating.heard, streaming.heard[-streamed:]
    for tensors in zip(trained, calibrated, evaluated, streamed_tensors, strict=True):
        assert all(np.array_equal(tensors[0], other) for other in tensors[1:])


def test_the_comparison_can_fail(small_data: Path) -> None:
    from edgeseg.data.loader import training_tensor

    split = read_split(small_data, "val")
    sample, spec = split.samples[0], SPECS[0]
    ours = training_tensor(sample, split.classes, spec)[0]
    resized = cv2.resize(cv2.imread(str(sample.image)), (96, 64), interpolation=cv2.INTER_AREA)
    theirs = (resized[..., ::-1] / 255 - spec.mean) / spec.std
    assert not np.array_equal(ours, theirs.transpose(2, 0, 1).astype(np.float32))
