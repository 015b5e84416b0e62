from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.artifacts import sha256_file
from edgeseg.errors import (
    CorruptArtifact,
    DatasetError,
    MismatchedArtifact,
    OpenFailed,
    SourceError,
    UsageError,
)
from edgeseg.precision.calibration import collect, load_set, spread


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Forty frames; frame n has the grey level 5n."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for index in range(40):
        writer.write(np.full((48, 64, 3), 5 * index, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("total", "count"), [(100, 10), (17, 16), (1000, 64)])
def test_spread_draws_one_from_each_part(total: int, count: int) -> None:
    chosen = spread(total, count, seed=5)
    assert len(chosen) == count
    for part, index in enumerate(chosen):
        assert part * total // count <= index < -(-(part + 1) * total // count)
    assert chosen == spread(total, count, seed=5)
    assert spread(1000, 64, seed=1) != spread(1000, 64, seed=2)


def test_spread_takes_all_of_too_few() -> None:
    assert spread(3, 8, seed=0) == [0, 1, 2]


def test_pictures_are_listed_with_their_hashes(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.json"
    made = collect(pictures, out, count=4)
    assert len(made.files) == 4
    for file in made.files:
        assert file.path.startswith("pictures/")
        assert file.sha256 == sha256_file(tmp_path / file.path)
    read, paths = load_set(out)
    assert read == made
    assert all(path.is_file() for path in paths)


def test_pictures_elsewhere_are_absolute(pictures: Path, tmp_path: Path) -> None:
    made = collect(str(pictures / "*.png"), tmp_path / "calib" / "m.json", count=2)
    assert all(Path(file.path).is_absolute() for file in made.files)


def test_the_set_hash_is_over_contents_not_paths(pictures: Path, tmp_path: Path) -> None:
    first = collect(pictures, tmp_path / "a.json", count=9)
    pictures.rename(tmp_path / "moved")
    second = collect(tmp_path / "moved", tmp_path / "b.json", count=9)
    assert first.set_sha256 == second.set_sha256
    third = collect(tmp_path / "moved", tmp_path / "c.json", count=3)
    assert third.set_sha256 != first.set_sha256


def test_frames_of_a_video_are_spread_over_it(video: Path, tmp_path: Path) -> None:
    made = collect(video, tmp_path / "calib" / "clip.json", count=8, seed=3)
    assert len(made.files) == 8
    for file, wanted in zip(made.files, spread(40, 8, seed=3), strict=True):
        assert file.path == f"clip/{wanted:06d}.png"
        frame = cv2.imread(str(tmp_path / "calib" / file.path))
        assert abs(float(frame.mean()) - 5 * wanted) < 2


def test_a_source_without_declared_end_gives_every_tenth_frame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = collect("test:64x48@1000", tmp_path / "calib" / "live.json", count=3)
    assert [file.path for file in made.files] == [f"live/{n:06d}.png" for n in (0, 10, 20)]
    first, second = (cv2.imread(str(tmp_path / "calib" / file.path)) for file in made.files[:2])
    assert not np.array_equal(first, second)
    made = collect("test:64x48@1000?frames=40", tmp_path / "calib" / "ended.json", count=50)
    assert "50 pictures wanted" in caplog.text
    assert 4 <= len(made.files) <= 40


def test_a_changed_picture_is_refused(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.json"
    made = collect(pictures, out, count=3)
    altered = tmp_path / made.files[1].path
    whole = altered.read_bytes()
    altered.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(MismatchedArtifact, match="changed since the set was made") as caught:
        load_set(out)
    assert "edgeseg calibrate" in str(caught.value.mend)
    altered.unlink()
    with pytest.raises(MismatchedArtifact, match="is gone"):
        load_set(out)


def test_a_manifest_with_another_list_is_refused(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.json"
    collect(pictures, out, count=3)
    document = json.loads(out.read_text())
    document["files"] = document["files"][:2]
    out.write_text(json.dumps(document))
    with pytest.raises(CorruptArtifact, match="set_sha256 is not that of the files"):
        load_set(out)


def test_sources_that_give_nothing(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "manifest.json"
    with pytest.raises(UsageError, match="at least 1 picture, not 0"):
        collect(pictures, out, count=0)
    with pytest.raises(UsageError, match="no picture"):
        collect(tmp_path / "*.png", out)
    (tmp_path / "no-video.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(OpenFailed, match="no-video.mp4"):
        collect(tmp_path / "no-video.mp4", out)
    victim = next(iter(sorted(pictures.iterdir())))
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(DatasetError, match=victim.name):
        collect(pictures, out)
    assert not out.exists()
    assert capfd.readouterr().out == ""


def test_passwords_are_masked_everywhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SourceError) as caught:
        collect("rtsp://admin:hunter2@127.0.0.1:9/live?token=hunter2", tmp_path / "m.json")
    said = str(caught.value) + str(caught.value.mend) + caplog.text + "".join(capfd.readouterr())
    assert "rtsp://admin:***@127.0.0.1:9/live" in said
    assert "hunter2" not in said
