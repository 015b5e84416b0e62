"""Labelled streams: the live score against that of an evaluation."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from streaming import StillSource

from edgeseg.artifacts.card import ClassMap
from edgeseg.data.folders import read_split
from edgeseg.engines.base import Engine
from edgeseg.errors import DatasetError, UsageError
from edgeseg.evaluation import evaluate
from edgeseg.loading import load
from edgeseg.stream import Stream, run
from edgeseg.stream.sinks.scoring import Scoring

TWO = ClassMap.model_validate({"names": ("background", "bright")})


@pytest.fixture
def masks(tmp_path: Path, step: Callable[..., np.ndarray]) -> Callable[[int], Path]:
    """``masks(count)``: those of ``step_frame``, the n-th wrong in its first n rows."""

    def make(count: int) -> Path:
        folder = tmp_path / "masks"
        folder.mkdir()
        for index in range(count):
            mask = (step(index)[..., 0] > 127).astype(np.uint8)
            mask[:index] = 1 - mask[:index]
            cv2.imwrite(str(folder / f"{index:03d}.png"), mask)
        return folder

    return make


@pytest.fixture
def clip(make_video: Callable[..., Path], engine: Engine) -> Callable[[int], Stream]:
    """``clip(count)``: a stream of a video of that many frames."""
    return lambda count: Stream(make_video(count), engine)


def test_frames_of_a_video_meet_the_masks_of_their_number(
    masks: Callable[[int], Path], clip: Callable[[int], Stream]
) -> None:
    scoring = Scoring(masks(8), TWO)
    run(clip(8), [scoring])
    figures = scoring.to_dict()
    assert figures is not None
    assert (figures["frames"], figures["unlabelled"]) == (8, 0)
    # Row n is wrong in the masks after the n-th: 0 + 1 + … + 7 of 8 × 48 rows.
    assert figures["pixel_accuracy"] == pytest.approx(1 - 28 / (8 * 48))


def test_a_video_in_a_loop_begins_with_the_first_mask_again(
    masks: Callable[[int], Path], step: Callable[..., np.ndarray], engine: Engine, tmp_path: Path
) -> None:
    scoring = Scoring(masks(1), TWO)
    for index in range(5):  # the video stands still
        cv2.imwrite(str(tmp_path / f"{index}.png"), step(0))
    results = list(Stream(tmp_path / "*.png", engine))
    scoring.open([StillSource(realtime=False)])
    for result in results:
        object.__setattr__(result, "name", None)
        scoring.write(result)
    figures = scoring.to_dict()
    assert figures is not None
    assert (figures["frames"], figures["mean_iou"]) == (5, 1.0)


def test_pictures_meet_the_masks_of_their_name_and_the_score_is_that_of_an_evaluation(
    trained: Path, small_data: Path, tmp_path: Path
) -> None:
    split = read_split(small_data, "val")
    truth = tmp_path / "truth"
    truth.mkdir()
    for sample in split:
        instances = cv2.imread(str(sample.instances), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(truth / f"{sample.image.stem}.png"), (instances > 0).astype(np.uint8))
    (truth / "of-another.png").write_bytes(next(truth.glob("*.png")).read_bytes())
    with load(trained / "model.onnx", threads=1) as network:
        scoring = Scoring(truth, network.card.classes)
        run(Stream(small_data / "val" / "images", network), [scoring])
        expected = evaluate(network, split).to_dict()
    figures = scoring.to_dict()
    assert figures is not None
    for name in ("mean_iou", "pixel_accuracy", "mean_accuracy", "per_class"):
        assert figures[name] == expected[name]
    assert figures["frames"] == expected["images"] == 4


def test_a_camera_that_was_lost_is_scored_no_further(
    masks: Callable[[int], Path], clip: Callable[[int], Stream], caplog: pytest.LogCaptureFixture
) -> None:
    source = StillSource()
    scoring = Scoring(masks(6), TWO)
    scoring.open([source])
    for result in clip(6):
        source.reconnects = int(result.index >= 4)
        scoring.write(result)
    figures = scoring.to_dict()
    assert figures is not None
    assert (figures["frames"], figures["unlabelled"]) == (4, 2)
    assert caplog.text.count("was lost for a while") == 1


def test_masks_that_do_not_fit_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \*.png masks"):
        Scoring(tmp_path, TWO).open([StillSource()])
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4), 7, np.uint8))
    with pytest.raises(DatasetError, match=r"a.png holds 7; the network's ids are 0…1"):
        Scoring(tmp_path, TWO).open([StillSource()])


def test_a_bad_mask_is_said_before_its_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64), np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((48, 64), 9, np.uint8))
    with pytest.raises(DatasetError, match=r"b.png holds 9"):
        Scoring(tmp_path, TWO).open([StillSource()])


@pytest.mark.parametrize(
    ("count", "fits"), [(8, True), (4, True), (1, True), (5, False), (9, False)]
)
def test_masks_are_as_many_as_the_frames_once_or_several_times(
    masks: Callable[[int], Path], clip: Callable[[int], Stream], count: int, fits: bool
) -> None:
    stream = clip(8)
    scoring = Scoring(masks(count), TWO)
    if fits:
        assert run(stream, [scoring]).frames == 8
    else:
        with pytest.raises(DatasetError, match=f"{count} masks do not fit the 8 frames of"):
            run(stream, [scoring])


def test_masks_of_another_shape_end_the_run(clip: Callable[[int], Stream], tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((64, 48), np.uint8))
    with pytest.raises(DatasetError, match=r"a\.png is 48×64, which is not the shape of the 64×48"):
        run(clip(2), [Scoring(folder, TWO)])


def test_the_running_score_is_that_of_the_frames_so_far(
    masks: Callable[[int], Path], clip: Callable[[int], Stream]
) -> None:
    scoring = Scoring(masks(4), TWO)
    scoring.open([StillSource(realtime=False)])
    assert scoring.mean_iou is None
    seen = []
    for result in clip(4):
        scoring.write(result)
        seen.append(scoring.mean_iou)
    figures = scoring.to_dict()
    assert figures is not None
    assert seen[0] == 1.0
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == figures["mean_iou"] < 1


def test_nothing_scored_is_none(tmp_path: Path) -> None:
    assert Scoring(tmp_path, TWO).to_dict() is None
