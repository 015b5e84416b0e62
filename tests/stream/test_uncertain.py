"""Frames worth labelling: which are kept, how many, and as what data set."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import StillSource, still_result

from edgeseg.artifacts.card import ClassMap
from edgeseg.data.check import check
from edgeseg.data.decode import load_ids, load_image
from edgeseg.data.sample import load_sample
from edgeseg.engines.base import Engine
from edgeseg.errors import OutputError, UsageError
from edgeseg.options.training import TrainConfig
from edgeseg.stream import Stream, StreamOptions, StreamResult, UncertainFrames, from_frames, run
from edgeseg.stream.sinks import health
from edgeseg.training.setup import read_splits

SIZE = (48, 64)
HELD = 4
"""Frames that show one scene."""

CLASSES = ClassMap.model_validate({"names": ("background", "bright")})
NONE = np.zeros(SIZE, np.uint8)
FILE = StillSource("drive.mkv", realtime=False, live=False)
CAMERA = StillSource("camera:0")


def scene(number: int, doubt: int = 0) -> NDArray[np.uint8]:
    """Black and white blobs, far from the network's threshold of 127.5 but in ``doubt`` rows."""
    random = np.random.default_rng(number)
    coarse = random.choice(np.array([30, 225], np.uint8), (6, 8, 1))
    frame = np.kron(coarse, np.ones((8, 8, 3), np.uint8))
    frame[:doubt] = 127
    return frame


def seen(number: int, doubt: int, moment: int) -> NDArray[np.uint8]:
    """A scene as a camera takes it at one moment, with noise of ±3 levels, the same in a pixel."""
    noise = np.random.default_rng((number, moment)).integers(-3, 4, (*SIZE, 1))
    return np.asarray(np.clip(scene(number, doubt) + noise, 0, 255), np.uint8)


def doubted(number: int, share: float, index: int, **changes: Any) -> StreamResult:
    """A frame of a scene, whose labels differ in a share of the pixels from those around it."""
    labels = NONE.copy()
    if index % 2:
        labels[: round(share * SIZE[0])] = 1
    fields = {"frame": scene(number), "index": index, "media_time": index / 25, "classes": CLASSES}
    return still_result(labels, **(fields | changes))


def scenes(sink: UncertainFrames, shares: dict[int, float], first: int = 0, **changes: Any) -> None:
    """Three results of each scene, so that the one in the middle has the share of disagreement."""
    index = first
    for number, share in shares.items():
        for _ in range(3):
            sink.write(doubted(number, share, index, **changes))
            index += 1
        index += index % 2 == 1  # each scene begins with an even frame


def opened(folder: Path, per_hour: int = 20, source: StillSource = FILE, **how: Any) -> Any:
    sink = UncertainFrames(folder, CLASSES, per_hour, **how)
    sink.open([source])
    return sink


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("[tv]*/images/*.png"), key=lambda path: path.name)


def numbers(folder: Path, among: Sequence[int]) -> list[int]:
    """The scenes that the kept pictures show."""
    return sorted(
        next(n for n in among if np.array_equal(load_image(path), scene(n)))
        for path in pictures(folder)
    )


@pytest.mark.parametrize("options", [{}, {"smooth": 5.0}], ids=["plain", "smoothed"])
def test_a_stream_keeps_its_ambiguous_scenes_and_training_reads_them(
    engine: Engine, tmp_path: Path, options: dict[str, Any]
) -> None:
    doubts = {number: 20 if number % 3 == 1 else 0 for number in range(12)}
    doubts[7] = 0  # leaves three ambiguous scenes; all the cuts must not count
    frames = [seen(n, doubt, moment) for n, doubt in doubts.items() for moment in range(HELD)]
    folder = tmp_path / "doubt"
    source = from_frames(lambda: iter(frames), live=False)
    report = run(
        Stream(source, engine, StreamOptions(realtime=False, **options)),
        [UncertainFrames(folder, engine.card.classes, 4)],
    )
    (sink,) = report.sinks
    assert (sink.kind, sink.state, sink.written, sink.lost) == ("UncertainFrames", "ok", 3, 0)
    kept = [load_image(path) for path in pictures(folder)]
    shown = [next(i for i, f in enumerate(frames) if np.array_equal(f, k)) for k in kept]
    assert [index // HELD for index in shown] == [1, 4, 10]

    findings = check(folder)
    assert not findings.faults
    training, validation = read_splits(TrainConfig(data=folder, run=tmp_path / "run"))
    assert training.classes == engine.card.classes
    assert (len(training), len(validation)) == (2, 1)
    for sample in (*training, *validation):
        picture, mask = load_sample(sample, engine.card.classes)
        if not options:
            np.testing.assert_array_equal(mask, engine.segment(picture))


def test_the_most_uncertain_frames_of_an_hour_stay_in_any_order(tmp_path: Path) -> None:
    shares = dict(enumerate([0.1, 0.5, 0.2, 0.9, 0.3, 0.4]))
    sink = opened(tmp_path, per_hour=3)
    scenes(sink, shares)
    sink.close()
    assert numbers(tmp_path, list(shares)) == [1, 3, 5]
    assert not (tmp_path / ".pending").exists()
    for path in pictures(tmp_path):
        mask = load_ids(path.parents[1] / "masks" / path.name)
        assert mask.shape == SIZE


def test_each_hour_of_a_file_has_its_own_frames(tmp_path: Path) -> None:
    sink = opened(tmp_path, per_hour=1)
    scenes(sink, {0: 0.5, 1: 0.9}, media_time=1800.0)
    scenes(sink, {2: 0.2, 3: 0.1}, media_time=5400.0)
    assert numbers(tmp_path, range(4)) == [1]
    sink.close()
    assert numbers(tmp_path, range(4)) == [1, 2]


def test_near_duplicates_cuts_and_damage_do_not_count(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    scenes(sink, {0: 0.2})
    scenes(sink, {0: 0.6}, first=10)  # the same, more uncertain
    scenes(sink, {1: 0.5}, first=20, damaged=True)
    scenes(sink, {2: 0.5}, first=30, frame=np.full((*SIZE, 3), 90, np.uint8))
    for share in (0, 0, 1, 1):  # a cut
        sink.write(doubted(3, share, 41))
    for index in range(3):  # each of another connection
        sink.write(doubted(4, 0.5, 50 + index, reconnects=index))
    sink.close()
    assert numbers(tmp_path, range(5)) == [0]
    (mask,) = tmp_path.glob("*/masks/*.png")
    assert np.mean(load_ids(mask) == 1) == pytest.approx(0.6, abs=0.02)

    again = opened(tmp_path)  # and those of an earlier run are known
    scenes(again, {0: 0.9, 5: 0.1})
    again.close()
    assert numbers(tmp_path, range(6)) == [0, 5]


def test_a_camera_keeps_no_more_an_hour_across_restarts_and_replaces_nothing(
    tmp_path: Path,
) -> None:
    clock = datetime(2026, 11, 24, 10, 15)
    for run_number in range(3):
        sink = opened(tmp_path, per_hour=3, source=CAMERA, now=lambda: clock)
        scenes(sink, {2 * run_number: 0.3, 2 * run_number + 1: 0.5})
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
        sink.close()
        for path, data in before.items():
            assert ".pending" in path.parts or path.read_bytes() == data
    assert numbers(tmp_path, range(6)) == [0, 1, 3]

    sink = opened(tmp_path, per_hour=3, source=CAMERA, now=lambda: clock)
    clock = datetime(2026, 11, 24, 11, 0)
    scenes(sink, {6: 0.1})
    clock = datetime(2026, 11, 24, 12, 0)
    sink.idle()  # the camera is lost, its hour has ended
    assert numbers(tmp_path, range(7)) == [0, 1, 3, 6]
    sink.close()


def test_what_a_killed_process_left_is_kept(tmp_path: Path) -> None:
    killed = opened(tmp_path)
    scenes(killed, {0: 0.5, 1: 0.5, 2: 0.5})
    names = sorted(path.name for path in (tmp_path / ".pending" / "images").iterdir())
    pending = tmp_path / ".pending"
    (pending / "masks" / names[0]).rename(tmp_path / "train" / "masks" / names[0])
    cv2.imwrite(str(pending / "masks" / "alone.png"), NONE)
    with pytest.raises(OutputError, match="another stream"):
        opened(tmp_path)
    os.close(killed._handle)
    opened(tmp_path).close()
    assert numbers(tmp_path, range(3)) == [0, 1, 2]
    assert not check(tmp_path).faults
    assert not pending.exists()


def test_a_full_disk_loses_what_comes_meanwhile(
    tmp_path: Path, largest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_BACKOFF_S", (0.0,))
    sink = opened(tmp_path)

    def state() -> tuple[str, int, int]:
        (report,) = sink.reports()
        return report.state, report.written, report.lost

    largest(100)
    scenes(sink, {0: 0.5})
    assert state() == ("failed", 0, 1)
    scenes(sink, {0: 0.0})  # nothing to write: still failed
    assert state() == ("failed", 0, 1)
    largest(-1)
    scenes(sink, {1: 0.5})
    assert state() == ("ok", 0, 1)
    sink.close()
    assert state() == ("ok", 1, 1)
    assert numbers(tmp_path, range(2)) == [1]


def test_a_folder_of_something_else_is_refused(tmp_path: Path, edgeseg: Any) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="expected an empty folder"):
        opened(tmp_path)
    (tmp_path / "classes.json").write_text('{"names": ["sky", "road"]}')
    with pytest.raises(UsageError, match="background, bright, found sky, road"):
        opened(tmp_path)
    assert not (tmp_path / "train").exists()
    outcome = edgeseg("stream", "--source", "test:", "--per-hour", "3")
    assert outcome.code == 2
    assert "add --keep-uncertain DIR" in outcome.err
