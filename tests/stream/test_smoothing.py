"""Steady masks: labels hold until they are outvoted or the picture changes, in bounded time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import StillSource, still_result

from edgeseg.artifacts.card import InputSpec
from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine
from edgeseg.errors import UsageError
from edgeseg.stream import Stream, StreamOptions, StreamResult, run
from edgeseg.stream.result import moment
from edgeseg.stream.smoothing import Flicker, Smoother, Steadiness

HEIGHT, WIDTH = 48, 64
SECONDS = 0.2
Labels = NDArray[np.uint8]


def grey(level: int = 100) -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def labelled(value: int) -> Labels:
    return np.full((HEIGHT, WIDTH), value, np.uint8)


def smoothed(
    frames: Sequence[tuple[int, float]],
    picture: Callable[[int], NDArray[np.uint8]] | None = None,
    **changes: Sequence[Any],
) -> list[int]:
    """The label shown in the upper left corner; a frame is its network's label and its time."""
    smoother, shown = Smoother(SECONDS), []
    for index, (value, at) in enumerate(frames):
        own = {name: values[index] for name, values in changes.items()}
        frame = grey() if picture is None else picture(index)
        result = still_result(labelled(value), **{"frame": frame} | own)
        smoother.smooth(result, at)
        shown.append(int(result.labels[0, 0]))
    return shown


def at_25_hz(*labels: int) -> list[tuple[int, float]]:
    return [(label, index / 25) for index, label in enumerate(labels)]


def test_a_label_is_held_back_for_the_stated_time_and_no_longer() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):  # uneven frames, and a history of each pixel
        times = np.cumsum(rng.uniform(0.001, 0.09, 60))
        smoother, held = Smoother(SECONDS), 0.0
        for index, at in enumerate(times):
            labels = labelled(1) if index >= 40 else rng.integers(0, 3, (HEIGHT, WIDTH), np.uint8)
            result = still_result(labels, frame=grey())
            smoother.smooth(result, at)
            if index >= 40 and (result.labels != 1).any():
                held = at - times[40]
        assert 0 < held < SECONDS
    assert smoothed(at_25_hz(*[0] * 8, *[1] * 6))[8:] == [0, 0, 0, 0, 1, 1]
    assert smoothed(at_25_hz(*[0] * 8, 1, 0, 2, 0, 1, 0)) == [0] * 14


def texture(seed: int, height: int, width: int, level: int, spread: float) -> NDArray[np.uint8]:
    """A grey picture of a mean and a standard deviation, uint8 (height, width, 3)."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    fine = cv2.GaussianBlur(noise, (0, 0), 1.5)
    grain = np.clip(level + spread * fine / fine.std(), 0, 255).astype(np.uint8)
    return np.dstack((grain, grain, grain))


def lag_of(level: int) -> tuple[int, int]:
    """Of a square of 16 pixels that moves: most frames that a pixel, and most pixels, are wrong."""
    scene, thing = texture(0, HEIGHT, WIDTH, 100, 3), texture(1, 16, 16, level, 3)
    smoother, late, found = Smoother(SECONDS), np.zeros((40, WIDTH), int), []
    for index in range(9):
        frame, labels = scene.copy(), labelled(0)
        where = np.s_[8:24, 5 * index : 5 * index + 16]
        frame[where], labels[where] = thing, 1
        labels[40:] = index % 2  # flickers where nothing moves
        result = still_result(labels.copy(), frame=frame)
        smoother.smooth(result, index / 25)
        late = np.where(result.labels[:40] != labels[:40], late + 1, 0)
        found.append((int(late.max()), int(np.count_nonzero(late))))
        assert not result.labels[40:].any()
    longest, most = np.max(found, axis=0)
    return int(longest), int(most)


def test_what_moves_visibly_is_late_by_a_frame_at_its_edges_at_most() -> None:
    for level in (60, 160):
        longest, most = lag_of(level)
        assert longest <= 1
        assert most <= 2 * 16
    longest, most = lag_of(100)  # like the scene behind it
    assert 1 < longest <= SECONDS * 25
    assert most > 2 * 16


def panned(smoother: Smoother) -> tuple[float, float, float, float]:
    """Flicker in a panning scene, before smoothing and after; shares of right pixels likewise.

    8 % of the blocks of each label map are wrong.
    """
    frames, step = 24, 5
    length = WIDTH + frames * step
    rng, world = np.random.default_rng(0), texture(0, HEIGHT, length, 128, 50)
    zones = np.kron(rng.integers(0, 3, (3, length // 16 + 1)), np.ones((16, 16), int))
    before, after, right = Flicker(), Flicker(), []
    for index in range(frames):
        seen = np.s_[:, step * index : step * index + WIDTH]
        errors = np.kron(rng.random((12, 16)) < 0.08, np.ones((4, 4), int))
        labels = ((zones[seen] + errors) % 3).astype(np.uint8)
        result = still_result(labels.copy(), frame=world[seen])
        smoother.smooth(result, index / 25)
        before.add(labels)
        after.add(result.labels)
        right.append([np.mean(each == zones[seen]) for each in (labels, result.labels)])
    assert before.share is not None
    assert after.share is not None
    network, smooth = np.mean(right, axis=0)
    return before.share, after.share, float(network), float(smooth)


class Shift:
    """Takes the place of the optical flow: all has moved by as many pixels of the grey picture."""

    def __init__(self, right: float, down: float) -> None:
        self._back = np.array([-right, -down], np.float32)

    def calc(self, now: Labels, _before: Labels, _flow: None) -> NDArray[np.float32]:
        return np.tile(self._back, (*now.shape, 1))


def test_a_panning_scene_needs_the_optical_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after, network, smooth = panned(Smoother(SECONDS))
    assert after < before / 2
    assert smooth > network
    without = Smoother(SECONDS)
    monkeypatch.setattr(without, "_flow", Shift(0, 0))
    before, after, _, _ = panned(without)
    assert after > before / 2


def test_a_label_is_held_where_the_flow_leads_to_it() -> None:
    """The rule, pixel by pixel, in a picture without any contrast."""
    rng = np.random.default_rng(0)
    smoother, maps = Smoother(SECONDS), rng.integers(0, 2, (12, HEIGHT, WIDTH), np.uint8)
    shown, votes = maps[0].astype(int), np.full((HEIGHT, WIDTH), 128)
    for index, labels in enumerate(maps):
        right, down = (int(each) for each in rng.integers(-2, 3, 2) * (index % 4 != 3))
        smoother._flow = Shift(right / 2, down / 2)  # type: ignore[assignment]
        result = still_result(labels.copy(), frame=grey())
        smoother.smooth(result, index / 20)
        for y, x in np.ndindex(HEIGHT if index else 0, WIDTH):
            origin = (y - down, x - right)
            known = 0 <= origin[0] < HEIGHT and 0 <= origin[1] < WIDTH
            at_border = (right or down) and not (8 <= y < HEIGHT - 8 and 8 <= x < WIDTH - 8)
            left = bool(right or down) and not (known and maps[index - 1][origin] == shown[y, x])
            if left or at_border:  # beyond the border the picture is unknown
                votes[y, x] = min(votes[y, x], 64)
            votes[y, x] = min(255, votes[y, x] + (64 if labels[y, x] == shown[y, x] else -64))
            if votes[y, x] <= 0:
                shown[y, x], votes[y, x] = labels[y, x], 128
        inner = np.s_[8:-8, 8:-8]
        assert np.array_equal(result.labels[inner], shown[inner])


def test_a_picture_of_which_half_changes_is_a_cut() -> None:
    for share, shown in ((0.4, 0), (0.6, 1)):

        def cut(index: int, rows: int = int(share * HEIGHT)) -> NDArray[np.uint8]:
            frame = grey()
            frame[HEIGHT - rows :] += np.uint8(60 if index == 5 else 0)
            return frame

        assert smoothed(at_25_hz(0, 0, 0, 0, 0, 1), cut)[-1] == shown


def test_memory_ends_with_a_connection_a_size_or_a_gap() -> None:
    steady = [(0, index / 25) for index in range(5)]
    assert smoothed([*steady, (1, 0.2)]) == [0] * 6
    assert smoothed([*steady, (1, 0.2)], reconnects=[0] * 5 + [1])[-1] == 1
    larger = np.full((2 * HEIGHT, 2 * WIDTH, 3), 100, np.uint8)
    assert smoothed([*steady, (1, 0.2)], frame=[grey()] * 5 + [larger])[-1] == 1
    assert smoothed([*steady, (1, 0.16 + SECONDS)])[-1] == 1
    assert smoothed([*steady, (1, 0.0)])[-1] == 1, "a file that begins again"


def test_the_border_of_a_letterbox_is_left_alone() -> None:
    spec = InputSpec(height=64, width=64, resize="letterbox")
    smoother, steadiness = Smoother(SECONDS), Steadiness(None)
    for index in range(6):
        labels = np.full((64, 64), index % 2, np.uint8)
        result = still_result(labels, input=spec, frame=np.zeros((32, 64, 3), np.uint8))
        steadiness.take(result, index / 25)
        smoother.smooth(result, index / 25)
        assert (result.labels[:16] == index % 2).all()
        assert not result.labels[16:48].any()
    assert steadiness.network.share == 1


def test_it_keeps_a_few_bytes_per_pixel() -> None:
    smoother, flicker, sizes = Smoother(SECONDS), Flicker(), set()
    for index in range(30):
        result = still_result(labelled(index % 3))
        flicker.add(result.labels)
        smoother.smooth(result, index / 25)
        if index > 2:
            arrays = [each for each in vars(smoother).values() if isinstance(each, np.ndarray)]
            sizes.add(sum(each.nbytes for each in (*arrays, *vars(flicker)["_before"])))
    (size,) = sizes
    assert size <= 5.3 * HEIGHT * WIDTH


def test_flicker_is_what_changes_and_changes_back() -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 3, (9, 7, 5), np.uint8)
    flicker, found = Flicker(), []
    for each in maps:
        found.append(flicker.add(each[:, ::-1]))
        each[...] = 9  # it must have its own copy
    maps = np.random.default_rng(0).integers(0, 3, (9, 7, 5), np.uint8)
    expected = [
        sum(a == c != b for a, b, c in zip(*(m.ravel() for m in maps[i : i + 3]), strict=True)) / 35
        for i in range(7)
    ]
    assert found[:2] == [None, None]
    assert found[2:] == pytest.approx(expected)
    assert (flicker.results, flicker.share) == (7, pytest.approx(np.mean(expected)))
    assert Flicker().share is None
    other = Flicker()
    kinds = [other.add(maps[0], kind) for kind in (0, 0, 1, 1, 1, 0)]
    assert kinds == [None, None, None, None, 0.0, None]


@pytest.fixture
def restless(tmp_path: Path) -> Path:
    """A clip whose right half is just above and just below the network's threshold in turns."""
    path = tmp_path / "restless.mkv"
    writer = cv2.VideoWriter()
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    assert writer.open(str(path), cv2.CAP_FFMPEG, codec, 25.0, (WIDTH, HEIGHT))
    for index in range(20):
        frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        frame[:, WIDTH // 2 :] = 122 if index % 2 else 132
        writer.write(frame)
    writer.release()
    return path


def test_a_restless_stream_becomes_steady(
    restless: Path, engine: Engine, bright_network: Path
) -> None:
    report = run(Stream(restless, engine))
    (source,) = report.sources
    assert source.flicker == source.network_flicker == pytest.approx(0.5, abs=0.02)
    assert "smooth" not in report.stages_ms
    with open_engine(bright_network, threads=1) as other:
        for engines in (engine, [engine, other]):  # lanes finish in any order
            stream = Stream(
                [restless, restless], engines, StreamOptions(smooth=SECONDS, mode="throughput")
            )
            maps = [result.labels.copy() for result in stream]
            assert all(np.array_equal(each, maps[0]) for each in maps)
            assert maps[0].any()
    report = run(Stream(restless, engine, StreamOptions(smooth=SECONDS)))
    (source,) = report.sources
    assert source.flicker == 0.0
    assert source.network_flicker == pytest.approx(0.5, abs=0.02)
    assert report.stages_ms["smooth"]["p50"]


def test_a_steady_stream_stays_as_it_is(make_video: Callable[..., Path], engine: Engine) -> None:
    """An edge that moves, hard to miss."""
    video = make_video(25)
    plain = [result.labels.copy() for result in Stream(video, engine)]
    smooth = [r.labels.copy() for r in Stream(video, engine, StreamOptions(smooth=SECONDS))]
    assert np.array_equal(plain, smooth)


@pytest.mark.parametrize(("label", "obscured"), [("bright", [1] * 6), ("background", [0, 1] * 3)])
def test_what_either_map_demands_is_obscured(
    tmp_path: Path, engine: Engine, label: str, obscured: list[int]
) -> None:
    """All smoothed maps say bright, the network's only every other one."""
    apart = np.random.default_rng(0).integers(-90, 91, (HEIGHT, WIDTH))
    for index in range(6):
        channels = np.stack([apart, 0 * apart, -apart], axis=2) + (122 if index % 2 else 132)
        cv2.imwrite(str(tmp_path / f"{index}.png"), channels)
    options = StreamOptions(smooth=SECONDS, blur=(label,), blur_margin=0)
    for index, result in enumerate(Stream(tmp_path, engine, options)):
        before = cv2.imread(str(tmp_path / f"{index}.png"))
        assert (result.labels == 1).all()
        assert (result.frame != before).any(axis=2).mean() == pytest.approx(
            obscured[index], abs=0.1
        )


def test_time_is_that_of_the_scene() -> None:
    result = StreamResult(50, "s", grey(), 1000.0, media_time=3.0)
    assert moment(StillSource(live=False), result) == 3
    assert moment(StillSource(), result) == 1000
    result.media_time = None
    assert moment(StillSource(live=False, realtime=False, fps=10.0), result) == 5
    assert moment(StillSource(live=False, realtime=False, fps=None), result) == 2
    assert moment(StillSource(live=False, realtime=True), result) == 1000


@pytest.mark.parametrize("value", ["0", "-1", "6", "nan", "x"])
def test_a_bad_value_is_refused(value: str, edgeseg: Any) -> None:
    done = edgeseg("stream", "--source", "test:", "--smooth", value, "--no-window")
    assert done.code == 2
    assert "--smooth" in done.err
    assert "Traceback" not in done.err
    if value != "x":
        with pytest.raises(UsageError, match="smooth"):
            StreamOptions(smooth=float(value))
