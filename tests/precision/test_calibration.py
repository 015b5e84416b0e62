import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numbered_videos import damage, make_numbered, number_of

from edgeseg.artifacts.files import sha256_file
from edgeseg.data.selection import SELECTS, Description, describe
from edgeseg.errors import (
    CorruptArtifact,
    DatasetError,
    MismatchedArtifact,
    OpenFailed,
    SourceError,
    UsageError,
)
from edgeseg.precision import calibration, candidates
from edgeseg.precision.calibration import collect
from edgeseg.precision.calibration_set import CalibrationSet, load_set

Scene = Callable[[int], np.ndarray]


@pytest.fixture
def video(scene: Scene, tmp_path: Path) -> Path:
    """Forty frames; the 8th and every 8th after it is black, frame 5 is blurred, 7 is 6 again."""
    frames = [scene(number) for number in range(40)]
    frames[8::8] = [np.zeros_like(frames[0])] * 4
    frames[5] = cv2.GaussianBlur(frames[5], (0, 0), 3)
    frames[7] = frames[6]
    path = tmp_path / "clip.mkv"
    # Lossless: what a codec adds to a blurred frame is sharp.
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 10, (128, 96))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


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


def test_frames_of_a_video_are_those_at_their_places(
    video: Path, scene: Scene, tmp_path: Path
) -> None:
    made = collect(video, tmp_path / "calib" / "clip.json", count=10, select="spread")
    assert len(made.files) == 10
    for file in made.files:
        place = int(Path(file.path).stem)
        assert file.path == f"clip/{place:06d}.png"
        frame = cv2.imread(str(tmp_path / "calib" / file.path))
        away = [np.abs(frame.astype(int) - scene(n)).mean() for n in range(40)]
        assert int(np.argmin(away)) == place
        assert file.brightness == pytest.approx(_grey(frame), abs=0.02)
    assert sorted(path.name for path in (tmp_path / "calib").iterdir()) == [
        *("clip", "clip.json", "clip.png")
    ]


def _grey(image: np.ndarray) -> float:
    return float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean())


def test_bad_frames_are_counted_by_reason(
    video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    made = collect(video, tmp_path / "clip.json", count=33)
    assert made.selection.candidates == 40
    assert made.selection.left_out == {"uniform": 4, "blurred": 1, "similar": 1}
    assert len(made.files) == 33
    assert not {f"clip/{n:06d}.png" for n in (5, 7, 8, 16, 24, 32)} & {f.path for f in made.files}
    assert "4 uniform, 1 blurred, 1 similar" in caplog.text
    assert "wanted" not in caplog.text


def test_a_source_of_which_nothing_is_of_use(tmp_path: Path) -> None:
    folder = tmp_path / "dark"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((40, 60, 3), number, np.uint8))
    with pytest.raises(SourceError, match=r"none of 3 pictures can be used \(3 uniform\)"):
        collect(folder, tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_selections_differ_and_say_so(video: Path, tmp_path: Path) -> None:
    taken = {}
    for select in SELECTS:
        made = collect(video, tmp_path / f"{select}.json", count=8, select=select, seed=2)
        assert made.selection.select == select
        taken[select] = [int(Path(file.path).stem) for file in made.files]
    assert taken["first"] == [0, 1, 2, 3, 4, 6, 9, 10]
    assert len({tuple(places) for places in taken.values()}) == len(SELECTS)


def test_the_first_are_looked_for_at_the_beginning_only(scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(30):
        cv2.imwrite(str(folder / f"{number:02d}.png"), scene(number))
    made = collect(folder, tmp_path / "first.json", count=3, select="first")
    assert [file.path for file in made.files] == [f"many/{number:02d}.png" for number in range(3)]
    assert made.selection.candidates == 12
    made = collect(folder, tmp_path / "spread.json", count=3)
    assert made.selection.candidates == 12
    assert any(int(Path(file.path).stem) > 12 for file in made.files)


def test_classes_are_counted_where_labels_lie_beside(small_data: Path, tmp_path: Path) -> None:
    made = collect(small_data / "train" / "images", tmp_path / "m.json", count=5)
    objects = pixels = 0
    for file in made.files:
        name = Path(file.path).name
        ids = cv2.imread(str(small_data / "train" / "instances" / name), cv2.IMREAD_UNCHANGED)
        objects, pixels = objects + int((ids > 0).sum()), pixels + ids.size
    expected = {"background": 1 - objects / pixels, "nucleus": objects / pixels}
    assert made.class_shares == pytest.approx(expected, abs=1e-5)


def test_pictures_without_labels_have_no_classes(
    pictures: Path, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert collect(pictures, tmp_path / "m.json", count=3).class_shares is None
    assert "not counted" not in caplog.text
    data = tmp_path / "data"
    shutil.copytree(small_data, data)
    victim = next((data / "train" / "instances").iterdir())
    victim.write_bytes(victim.read_bytes()[:100])
    made = collect(data / "train" / "images", tmp_path / "n.json", count=50)
    assert made.class_shares is None
    assert victim.name in caplog.text


def test_a_source_without_declared_end_gives_every_tenth_frame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = collect("test:64x48@1000", tmp_path / "calib" / "live.json", count=3)
    assert made.selection.candidates == 6
    assert {file.path for file in made.files} <= {f"live/{n:06d}.png" for n in range(0, 60, 10)}
    first, second = (cv2.imread(str(tmp_path / "calib" / file.path)) for file in made.files[:2])
    assert not np.array_equal(first, second)
    made = collect("test:64x48@1000?frames=40", tmp_path / "calib" / "ended.json", count=50)
    assert "50 pictures requested" in caplog.text
    assert made.selection.candidates == 40


def test_frames_that_cannot_be_read_are_said_and_the_others_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    video = damage(make_numbered(tmp_path / "clip.mp4", "j"), "zero")
    made = collect(video, tmp_path / "calib" / "clip.json", count=60, select="first")
    (said,) = (record for record in caplog.records if "are chosen" in record.getMessage())
    lost = int(said.getMessage().split(": ")[1].split(" ")[0])
    assert f"{lost} of 60 frames could not be read" in said.getMessage()
    assert 0 < lost < 15
    assert made.selection.candidates == 60 - lost
    places = [int(Path(file.path).stem) for file in made.files]
    assert max(places) > 50
    for file, place in zip(made.files, places, strict=True):
        assert number_of(cv2.imread(str(tmp_path / "calib" / file.path))) == place


def test_frames_that_come_once_are_saved_as_they_come(scene: Scene, tmp_path: Path) -> None:
    """A camera by its interface: the second look at a live source would see something else."""
    made = collect_live(tmp_path, [scene(number) for number in range(95)], count=3)
    # Two candidates for each wanted, ten frames apart.
    assert made.selection.candidates == 6
    for file in made.files:
        place = int(Path(file.path).stem)
        assert place % 10 == 0
        assert np.array_equal(cv2.imread(str(tmp_path / "calib" / file.path)), scene(place))
    assert len(list((tmp_path / "calib" / "live").iterdir())) == 3
    assert not list((tmp_path / "calib").glob(".*"))
    short = collect_live(tmp_path, [scene(number) for number in range(15)], count=3)
    assert short.selection.candidates == 2


def collect_live(folder: Path, frames: list[np.ndarray], count: int) -> CalibrationSet:
    class Camera:
        fps, declared, unreadable, opened, place = 25.0, None, 0, 0, None

        def __init__(self, spec: object) -> None:
            Camera.opened += 1
            self.waiting = iter(frames)

        def read(self) -> np.ndarray | None:
            return next(self.waiting, None)

        def close(self) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "open_frames", Camera)
        made = collect("camera:0", folder / "calib" / "live.json", count=count)
    assert Camera.opened == 1
    return made


def test_pictures_are_looked_at_one_at_a_time(
    scene: Scene, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: set[int] = set()
    most: list[int] = []

    def counting(name: str, image: np.ndarray) -> Description:
        alive.add(id(image))
        weakref.finalize(image, alive.discard, id(image))
        most.append(len(alive))
        return describe(name, image)

    monkeypatch.setattr(calibration, "describe", counting)
    collect(video, tmp_path / "clip.json", count=10)
    assert len(most) == 40
    # The one looked at, and perhaps the next that was decoded already.
    assert max(most) <= 2
    hoard: list[np.ndarray] = []

    def keeping(name: str, image: np.ndarray) -> Description:
        hoard.append(image)
        return counting(name, image)

    monkeypatch.setattr(calibration, "describe", keeping)
    collect(video, tmp_path / "clip.json", count=10)
    assert max(most) > 30, "what keeps pictures is found out"


def test_a_changed_picture_is_refused(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.json"
    made = collect(pictures, out, count=3)
    altered = tmp_path / made.files[1].path
    whole = altered.read_bytes()
    altered.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(MismatchedArtifact, match="changed since the set was made") as caught:
        load_set(out)
    assert "edgeseg calibrate" in str(caught.value.hint)
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
    for victim in pictures.iterdir():
        victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"truncated or altered.*\(and \d+ more\)"):
        collect(pictures, out)
    assert not out.exists()
    assert capfd.readouterr().out == ""


def test_a_picture_that_cannot_be_read_is_left_out_and_named(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others keep their own files: names and hashes of the manifest are checked on reading."""
    victim = sorted(pictures.iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:200])
    out = tmp_path / "manifest.json"
    collect(pictures, out, count=len(list(pictures.iterdir())))
    _, paths = load_set(out)
    assert victim.name in caplog.text
    assert paths
    assert victim.name not in {path.name for path in paths}


def test_passwords_are_masked_everywhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SourceError) as caught:
        collect("rtsp://admin:hunter2@127.0.0.1:9/live?token=hunter2", tmp_path / "m.json")
    said = str(caught.value) + str(caught.value.hint) + caplog.text + "".join(capfd.readouterr())
    assert "rtsp://admin:***@127.0.0.1:9/live" in said
    assert "hunter2" not in said
