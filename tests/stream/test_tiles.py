"""``edgeseg stream --tiles``: frames larger than the network, labelled as by ``infer --tiles``."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import Kept, threshold_network

from edgeseg.data.decode import load_ids
from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine
from edgeseg.engines.tiles import segment_tiled
from edgeseg.errors import UsageError
from edgeseg.stream import Stream, StreamOptions, from_frames, run
from edgeseg.stream.alerts import Alerts, parse_rule

HEIGHT, WIDTH = 48, 64


def local_mean(folder: Path, batch: int | str) -> Path:
    """An ONNX network: class 1 where the mean of 9x9 pixels is above half, zeros around a tile."""
    grey = "Conv <pads=[4,4,4,4]> (image, mean)"
    mean = np.full((1, 3, 9, 9), 1 / 243, np.float32)
    return threshold_network(folder / "mean.onnx", HEIGHT, WIDTH, batch, grey, mean=mean)


@pytest.fixture(params=[1, "N"], ids=["batch of 1", "any batch"])
def tiled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with open_engine(local_mean(tmp_path, request.param), threads=1) as opened:
        yield opened


def noise(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Blobs of about ten pixels, near the network's threshold."""
    coarse = np.random.default_rng(seed).integers(60, 200, (height // 9, width // 9, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


def recording(*frames: NDArray[np.uint8]) -> Any:
    return from_frames(list(frames), live=False)


def test_masks_equal_those_of_infer(tmp_path: Path, edgeseg: Callable[..., Any]) -> None:
    network = str(local_mean(tmp_path, 1))
    (tmp_path / "frames").mkdir()
    sizes = [(150, 200), (40, 50), (100, 300)]  # one of them smaller than the network
    for number, size in enumerate(sizes):
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), noise(number, *size))
    frames, masks, out = (str(tmp_path / name) for name in ("frames", "masks", "out"))
    given = ("--no-window", "--save-masks", masks)
    for margin in ((), ("8",)):
        of_stream, of_infer = (
            (name, *margin) if margin else () for name in ("--tile-margin", "--margin")
        )
        streamed = edgeseg(
            "stream", network, "--source", frames, "--tiles", *of_stream, *given, "--overwrite"
        )
        assert streamed.code == 0, streamed.err
        inferred = edgeseg(
            "infer", network, frames, "--tiles", *of_infer, "--out", out, "--overwrite"
        )
        assert inferred.code == 0, inferred.err
        for number, size in enumerate(sizes):
            mask = load_ids(tmp_path / "masks" / f"{number}.png")
            assert mask.shape == size
            np.testing.assert_array_equal(mask, load_ids(tmp_path / f"out/{number}.labels.png"))
    shrunk = edgeseg("stream", network, "--source", frames, *given, "--overwrite")
    assert shrunk.code == 0
    assert np.any(load_ids(tmp_path / "masks" / "0.png") != load_ids(tmp_path / "out/0.labels.png"))


def test_a_card_can_ask_for_tiles(tiled: Engine) -> None:
    spec = tiled.card.input.model_copy(update={"tiles": True})
    tiled.card = tiled.card.model_copy(update={"input": spec})
    frame, kept = noise(0, 100, 130), Kept()
    for options in (StreamOptions(), StreamOptions(tiles=False)):
        run(Stream(recording(frame), tiled, options), [kept])
    assert np.array_equal(kept.results[0].labels, segment_tiled(tiled, frame))
    assert kept.results[1].labels.shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_several_sources_whose_size_changes(tiled: Engine, mode: Any) -> None:
    calls: list[int] = []
    infer = tiled.infer

    def counted(batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        calls.append(len(batch))
        return infer(batch)

    tiled.infer = counted  # type: ignore[method-assign]
    fixed = tiled.capabilities.batch
    frames = [noise(0, 100, 130), noise(1, 100, 130), noise(2, 90, 200)]
    kept = Kept()
    options = StreamOptions(realtime=False, mode=mode, tiles=True, batch=3)
    report = run(Stream([recording(*frames), recording(*frames[::-1])], tiled, options), [kept])
    assert set(calls) == {fixed or 3}
    assert report.frames == 6
    assert report.stages_ms["infer"]["p50"]
    assert report.stages_ms["preprocess"]["p50"]
    for result in kept.results:
        labels = segment_tiled(tiled, result.frame, batch=3)
        np.testing.assert_array_equal(result.labels, labels)
        np.testing.assert_array_equal(result.mask(), labels)
        assert result.areas().tolist() == np.bincount(labels.ravel(), minlength=2).tolist()
        assert sum(region.area for region in result.regions()) == np.count_nonzero(labels)
        assert result.overlay().shape == result.frame.shape
        assert result.age_ms > 0
    assert {result.camera for result in kept.results} == {0, 1}
    # Each frame takes an inference of its own, whose times no other frame shows.
    times = {tuple(result.stages_ms[s] for s in ("preprocess", "infer")) for result in kept.results}
    assert len(times) == 6


def test_privacy_smoothing_and_alerts_see_what_a_shrunk_frame_hides(tiled: Engine) -> None:
    def frame(height: int, width: int) -> NDArray[np.uint8]:
        """Dark, with a chequered square of which a shrunk frame shows a pixel or two."""
        picture = np.full((height, width, 3), 20, np.uint8)
        rows, columns = np.indices((24, 24))
        picture[60:84, 100:124] = np.where((rows + columns) % 2, 255, 120)[..., np.newaxis]
        return picture

    frames = [frame(200, 300)] * 2 + [frame(180, 280)] * 2
    alerts = Alerts([parse_rule("bright >= 300 px for 0s")], tiled.card.classes)
    events: list[str] = []
    alerts.subscribe(lambda event: events.append(event["event"]))
    shown = {}
    for tiles in (True, False):
        kept = Kept()
        options = StreamOptions(
            realtime=False, tiles=tiles, smooth=0.2, blur=("bright",), blur_margin=4
        )
        report = run(
            Stream(recording(*frames), tiled, options), [kept, *([alerts] if tiles else [])]
        )
        assert report.frames == 4
        shown[tiles] = max(int(result.frame.max()) for result in kept.results)
    assert shown[True] < 255
    assert shown[False] == 255
    assert "raised" in events


def test_margins_that_leave_nothing(tiled: Engine) -> None:
    with pytest.raises(UsageError, match="no pixel between margins of 24"):
        Stream("test:", tiled, StreamOptions(tiles=True, tile_margin=24))
    with pytest.raises(UsageError, match="--tile-margin is of tiles"):
        StreamOptions(tile_margin=3)
