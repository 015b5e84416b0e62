from pathlib import Path

import numpy as np
import pytest
from cards import model_card
from numpy.typing import NDArray
from pydantic import ValidationError

from edgeseg.artifacts.sidecar import GateResult
from edgeseg.data.folders import list_images, read_split
from edgeseg.engines.base import Engine
from edgeseg.errors import AccuracyGateError, UsageError
from edgeseg.options.building import GateLimits
from edgeseg.precision.gate import enforce, judge


class Threshold(Engine):
    """Bright pixels are class 1; ``flipped`` rows at the top are answered wrongly."""

    runtime = "threshold"

    def __init__(self, flipped: int = 0) -> None:
        self.card = model_card(
            ("background", "nucleus"), 64, 64, name="threshold", arch="threshold"
        )
        self.path = Path("threshold")
        self.flipped = flipped

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        labels = (batch.mean(axis=1) > -1.2).astype(np.uint8)
        labels[:, : self.flipped] ^= 1
        return labels

    def close(self) -> None:
        pass


def test_the_same_engine_loses_nothing(small_data: Path) -> None:
    result = judge(Threshold(), Threshold(), read_split(small_data, "val"))
    assert (result.metric, result.images, result.judged_on) == ("mean_iou", 4, "threshold")
    assert result.drop == 0
    assert result.passed
    enforce(result, Path("model.int8.onnx"))


def test_a_loss_of_mean_iou_fails(small_data: Path) -> None:
    split = read_split(small_data, "val")
    result = judge(Threshold(), Threshold(flipped=20), split)
    assert result.drop > result.limit == 0.01
    assert not result.passed
    with pytest.raises(AccuracyGateError, match=r"model\.int8\.onnx was not written") as caught:
        enforce(result, Path("runs/model.int8.onnx"))
    error = caught.value
    assert error.exit_code == 7
    for figure in (result.value, result.reference, result.drop, result.limit):
        assert f"{figure:.4f}" in error.message
    assert "--keep" in str(error.hint)
    # What the hint proposes is enough.
    proposed = float(str(error.hint).split("--max-drop ")[1].split("`")[0]) / 100
    assert judge(Threshold(), Threshold(20), split, limits=GateLimits(max_drop=proposed)).passed


def test_a_loss_of_one_class_fails_though_the_mean_passes(nuclei: Path) -> None:
    split = read_split(nuclei, "val")
    result = judge(Threshold(), Threshold(flipped=20), split, limits=GateLimits(max_drop=1))
    assert result.drop < result.limit
    assert not result.passed
    worst = result.worst_class
    assert worst is not None
    assert worst.drop > 0.05
    with pytest.raises(AccuracyGateError, match=f"class '{worst.name}' falls from") as caught:
        enforce(result, Path("runs/model.int8.onnx"))
    proposed = float(str(caught.value.hint).split("--max-class-drop ")[1].split("`")[0]) / 100
    for limit in (proposed, None):
        loose = GateLimits(max_drop=1, max_class_drop=limit)
        assert judge(Threshold(), Threshold(20), split, limits=loose).passed


def test_a_loss_that_may_be_chance_is_a_warning(
    small_data: Path, nuclei: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Four pictures are too few to refuse for a class; fourteen are enough."""
    limits = GateLimits(max_drop=1)
    assert judge(Threshold(), Threshold(20), read_split(small_data, "val"), limits=limits).passed
    assert "that may be chance: give more pictures" in caplog.text
    caplog.clear()
    judge(Threshold(), Threshold(20), read_split(nuclei, "val"), limits=limits)
    judge(Threshold(), Threshold(), read_split(small_data, "val"), limits=limits)
    assert "chance" not in caplog.text


def test_unlabelled_pictures_are_judged_by_agreement(small_data: Path) -> None:
    pictures = list_images(small_data / "val" / "images")
    result = judge(Threshold(), Threshold(flipped=8), pictures)
    assert (result.metric, result.worst_class) == ("pixel_agreement", None)
    assert result.value == pytest.approx(1 - 8 / 64)
    assert result.limit == pytest.approx(0.02)
    assert not result.passed
    with pytest.raises(AccuracyGateError, match="equal pixels") as caught:
        enforce(result, Path("model.fp16.onnx"))
    assert "--min-agreement 87.5" in str(caught.value.hint)
    loose = GateLimits(min_agreement=0.875)
    assert judge(Threshold(), Threshold(8), pictures, limits=loose, judged_on="here").passed


def test_what_is_no_number_is_no_result() -> None:
    with pytest.raises(ValidationError, match="finite"):
        GateResult(
            metric="mean_iou",
            reference=0.8,
            value=float("nan"),
            drop=float("nan"),
            limit=1,
            passed=True,
            images=1,
            judged_on="threshold",
        )


def test_a_gate_without_pictures_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one picture"):
        judge(Threshold(), Threshold(), [])
