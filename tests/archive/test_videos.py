"""Ranges of frames against a reader that decodes the whole file."""

import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from archive_cases import make_video
from numbered_videos import damage, make_numbered

from edgeseg.archive.units import frame_count, read_frames
from edgeseg.errors import DatasetError
from edgeseg.sources.capture import open_frames
from edgeseg.sources.spec import parse_source

FRAMES = 100


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module", params=["mp4", "mkv", "avi", "mpg", "mov"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """B-frames, so that packets do not lie in the order of presentation; .avi states no times."""
    path = tmp_path_factory.mktemp("videos") / f"v.{request.param}"
    return make_video(path, FRAMES)


@pytest.mark.parametrize(
    ("first", "last", "every"), [(0, None, 1), (0, 40, 1), (37, 61, 1), (36, 99, 7), (90, None, 4)]
)
def test_a_range_holds_the_frames_of_the_whole(
    video: Path, first: int, last: int | None, every: int
) -> None:
    whole = decoded(video)
    assert len(whole) == FRAMES
    found = dict(read_frames(video, first, last, every))
    assert list(found) == list(range(FRAMES)[first:last:every])
    for number, picture in found.items():
        assert np.array_equal(picture, whole[number])


def test_frames_differ_so_that_a_wrong_one_is_seen(video: Path) -> None:
    whole = decoded(video)
    assert not any(np.array_equal(a, b) for a, b in zip(whole, whole[1:], strict=False))


def test_times_that_jump(tmp_path: Path) -> None:
    """Frames that the camera dropped: numbers count frames, not time."""
    path = make_video(tmp_path / "v.mkv", 60, dropped=range(20, 35))
    whole = decoded(path)
    assert len(whole) == 45
    found = dict(read_frames(path, 15, 30, 1))
    assert list(found) == list(range(15, 30))
    assert all(np.array_equal(picture, whole[number]) for number, picture in found.items())


@pytest.mark.parametrize(("name", "how"), [("h.mp4", "zero"), ("h.mkv", "cut"), ("m.avi", "cut")])
@pytest.mark.parametrize(("first", "last", "every"), [(0, None, 1), (12, None, 5), (50, 60, 1)])
def test_numbers_of_a_damaged_file_are_those_of_a_stream(
    name: str, how: str, first: int, last: int | None, every: int, tmp_path: Path
) -> None:
    path = damage(make_numbered(tmp_path / name, name[0]), how)
    stream, expected = open_frames(parse_source(path)), {}
    while (frame := stream.read()) is not None:
        assert stream.place is not None
        expected[stream.place.index] = frame
    found: dict[int, np.ndarray] = {}
    lost = set(range(60)[first:last:every]) - set(expected)
    with pytest.raises(DatasetError, match=f"{len(lost)} of") if lost else nullcontext():
        found.update(read_frames(path, first, last, every))  # keeps what came before the error
    assert sorted(found) == [n for n in range(60)[first:last:every] if n in expected]
    for number, picture in found.items():  # those between refer to frames that were lost
        if number < 20 or number >= 48:
            assert np.array_equal(picture, expected[number])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("degrees", ["90", "180", "270"])
def test_turned_as_the_file_says(tmp_path: Path, degrees: str) -> None:
    """As a phone held upright records; OpenCV is the oracle."""
    make_video(tmp_path / "flat.mp4", 3)
    line = ["ffmpeg", "-v", "error", "-i", "flat.mp4", "-c", "copy"]
    subprocess.run([*line, "-metadata:s:v", f"rotate={degrees}", "v.mp4"], cwd=tmp_path, check=True)
    _, expected = cv2.VideoCapture(str(tmp_path / "v.mp4")).read()
    flat = decoded(tmp_path / "v.mp4")[0]
    _, picture = next(read_frames(tmp_path / "v.mp4", 0, None, 1))
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).mean() < 3
    assert not np.array_equal(picture, flat)


def test_damaged(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "v.mkv", FRAMES).read_bytes()
    for name, data in (("text.mp4", b"no video"), ("none.mp4", b"")):
        (tmp_path / name).write_bytes(data)
        assert frame_count(tmp_path / name) == 0
        with pytest.raises(DatasetError, match=f"{name}: not a video that can be decoded"):
            list(read_frames(tmp_path / name, 0, None, 1))
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    read = list(read_frames(tmp_path / "cut.mkv", 0, None, 1))
    assert 20 < len(read) < FRAMES
