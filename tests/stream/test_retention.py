"""What outputs do with what is there: go on behind it, refuse, rotate, and keep to a budget."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from streaming import StillSource, still_result, written

from edgeseg.cli.outputs import Files, Keeping
from edgeseg.cli.sinks import FileSinks
from edgeseg.data.decode import load_ids
from edgeseg.errors import OutputError, UsageError
from edgeseg.sources.spec import parse_source
from edgeseg.stream import JsonLines, Masks, Recording
from edgeseg.stream.sinks.retention import Budget, Expiry, Rotation, Shelf, parts_of

LABELS = np.zeros((48, 64), np.uint8)
LIVE = StillSource()
FILE = StillSource("drive.mkv", live=False, realtime=False, declared=100)
FOLDER = StillSource("pictures", live=False, realtime=False, declared=2)


def lines(path: Path) -> list[int]:
    """Numbers of the frames in a file of which each line is JSON."""
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    return [document["frame"] for document in documents if "frame" in document]


def write_lines(path: Path, *frames: int, **options: Any) -> None:
    written(JsonLines(path, **options), *(still_result(LABELS, index=index) for index in frames))


def test_lines_go_on_behind_those_of_the_run_before(tmp_path: Path) -> None:
    for frame in (0, 1):
        write_lines(tmp_path / "a.jsonl", frame)
    assert lines(tmp_path / "a.jsonl") == [0, 1]
    write_lines(tmp_path / "a.jsonl", 2, overwrite=True)
    assert lines(tmp_path / "a.jsonl") == [2]


@pytest.mark.parametrize(
    ("torn", "kept"),
    [
        (b'{"frame": 7, "sou', []),
        (b'{"event": "state", "ti', []),
        (b"\0" * 512, []),
        (b'{"frame"', []),
        (b'{"frame": 7, "source": "x"}', [7]),
    ],
)
def test_lines_begin_anew_behind_a_torn_one(torn: bytes, kept: list[int], tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", 0)
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(torn)
    write_lines(tmp_path / "a.jsonl", 1)
    assert lines(tmp_path / "a.jsonl") == [0, *kept, 1]


@pytest.mark.parametrize("foreign", [b"\x08\x07onnx", b"notes", b'{"polygons": []}', b"[1]\n"])
def test_a_file_that_holds_no_lines_is_refused(foreign: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(foreign)
    with pytest.raises(UsageError, match="holds no lines of a stream"):
        JsonLines(tmp_path / "a.jsonl").open([LIVE])
    assert (tmp_path / "a.jsonl").read_bytes() == foreign


def test_lines_are_rotated_by_size_behind_the_parts_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "a-0003.jsonl").write_bytes(b"precious")
    write_lines(tmp_path / "a.jsonl", *range(20), rotation=Rotation(size=2000))
    parts = sorted(tmp_path.glob("a-0*.jsonl"))
    assert parts[0].read_bytes() == b"precious"
    assert [part.name for part in parts[1:3]] == ["a-0004.jsonl", "a-0005.jsonl"]
    assert all(part.stat().st_size <= 2000 for part in parts)
    found = [lines(part) for part in (*parts[1:], tmp_path / "a.jsonl")]
    assert [*itertools.chain(*found)] == [*range(20)]


def test_lines_are_rotated_by_the_age_of_the_file_of_an_earlier_run(tmp_path: Path) -> None:
    for hours, parts in ((0.5, 0), (1.5, 1)):
        began = datetime.now(timezone.utc) - timedelta(hours=hours)
        first = {"frame": 0, "time": began.isoformat().replace("+00:00", "Z")}
        (tmp_path / "a.jsonl").write_text(json.dumps(first) + "\n")
        write_lines(tmp_path / "a.jsonl", 1, rotation=Rotation(minutes=60))
        assert len(list(tmp_path.glob("a-*.jsonl"))) == parts


def test_a_file_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "a.jsonl")
    sink.open([LIVE])
    sink.write(still_result(LABELS))
    (tmp_path / "a.jsonl").rename(tmp_path / "old.jsonl")
    sink.write(still_result(LABELS, index=1))
    sink.close()
    assert (lines(tmp_path / "old.jsonl"), lines(tmp_path / "a.jsonl")) == ([0], [1])


OUTPUTS: dict[str, Callable[[Path], Any]] = {
    "lines": JsonLines,
    "recording": lambda path: Recording(path, overwrite=True),
    "parts": lambda path: Recording(path, minutes=1),
    "masks": Masks,
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_another_stream_writes_is_left_to_it(kind: str, tmp_path: Path) -> None:
    first, second = (OUTPUTS[kind](tmp_path / "a.mkv") for _ in range(2))
    first.open([LIVE])
    with pytest.raises(OutputError, match="written by another stream"):
        second.open([LIVE])
    first.close()
    second.open([LIVE])
    second.close()


@pytest.mark.parametrize("kind", ["lines", "recording"])
@pytest.mark.parametrize("there", [True, False])
def test_no_planted_link_is_followed(kind: str, there: bool, tmp_path: Path) -> None:
    if there:
        (tmp_path / "victim").touch()
    (tmp_path / "a.mkv").symlink_to(tmp_path / "victim")
    with pytest.raises(UsageError, match="symbolic link"):
        OUTPUTS[kind](tmp_path / "a.mkv").open([LIVE])
    assert not there or (tmp_path / "victim").read_bytes() == b""
    assert (tmp_path / "victim").exists() is there


def test_masks_of_a_camera_go_on_behind_the_highest_number(tmp_path: Path) -> None:
    (tmp_path / "000041.png").write_bytes(b"precious")
    for _ in range(2):
        written(Masks(tmp_path), still_result(LABELS, index=0))
    names = ["000041.png", "000042.png", "000043.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "000041.png").read_bytes() == b"precious"


def test_masks_of_a_video_replace_none_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "000041.png").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"000041\.png already exists"):
        Masks(tmp_path).open([FILE])
    written(Masks(tmp_path, overwrite=True), still_result(LABELS, index=41), source=FILE)
    assert cv2.imread(str(tmp_path / "000041.png"), cv2.IMREAD_UNCHANGED).shape == LABELS.shape
    assert [path.name for path in tmp_path.iterdir()] == ["000041.png"]


def pictures(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        assert cv2.imwrite(str(folder / name), np.full((48, 64, 3), 90, np.uint8))
    return [folder / name for name in names]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_mask_never_replaces_its_picture(overwrite: bool, tmp_path: Path) -> None:
    inputs = pictures(tmp_path / "in", "a.png")
    before = inputs[0].read_bytes()
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "in")
    for folder in (tmp_path / "in", linked):
        with pytest.raises(UsageError, match="would replace the picture"):
            Masks(folder, pictures=inputs, overwrite=overwrite).open([FOLDER])
    assert inputs[0].read_bytes() == before


def test_two_pictures_never_share_a_mask(tmp_path: Path) -> None:
    inputs = pictures(tmp_path / "in", "a.jpg", "a.png")
    with pytest.raises(UsageError, match=r"a\.jpg and .*a\.png would have the same mask"):
        Masks(tmp_path / "out", pictures=inputs, overwrite=True).open([FOLDER])


def test_a_mask_that_comes_to_be_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    sink = Masks(tmp_path)
    sink.open([LIVE])
    (tmp_path / "000000.png").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        sink.write(still_result(LABELS))
    sink.close()
    assert (tmp_path / "000000.png").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "name",
    ["2024-01-01T12:30:00.mkv", "-x.mkv", "file:y.mkv", "%d.mkv", "concat:a.mkv", "n\udcff.mkv"],
)
def test_any_name_of_a_file_is_one_of_a_recording(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sink = written(Recording(Path(name)), still_result(LABELS))
    assert sink.files() == [Path(name)]
    assert os.listdir() == [name]
    Path(name).rename("plain.mkv")
    assert cv2.VideoCapture("plain.mkv", cv2.CAP_FFMPEG).read()[0]


def test_a_budget_deletes_the_oldest_of_all_outputs_first(tmp_path: Path) -> None:
    budget = Budget(5 * 4096)
    for kind in ("a", "b"):
        for number in range(1, 5):
            path = tmp_path / f"{kind}-{number:04d}.mkv"
            path.write_bytes(b"x" * 4000)
            # The parts of b are older, though b-0001 says that it is the newest of all: a clock
            # that was wrong at the start of a machine must not turn a series round.
            at = 9000 if path.stem == "b-0001" else 1000 * (2 - "ab".index(kind)) + number
            os.utime(path, (at, at))
    (tmp_path / "a-note.mkv").write_bytes(b"x" * 100_000)
    (tmp_path / "a-0000.mkv").symlink_to(tmp_path / "a-note.mkv")
    for kind in ("a", "b"):
        Shelf(tmp_path, parts_of(tmp_path / f"{kind}.mkv"), budget).scan()
    left = {path.name for path in tmp_path.iterdir()} - {"a-note.mkv", "a-0000.mkv"}
    assert left == {"a-0004.mkv", *(f"b-000{number}.mkv" for number in range(1, 5))}
    assert budget.used == 5 * 4096


def test_files_that_a_user_deletes_make_room(tmp_path: Path) -> None:
    budget = Budget(4 * 4096)
    shelf = Shelf(tmp_path, parts_of(tmp_path / "a.mkv"), budget)
    shelf.scan()

    def put(number: int) -> None:
        path = tmp_path / f"a-{number:04d}.mkv"
        path.write_bytes(b"x")
        shelf.put(path, 1)

    for number in (1, 2, 3, 4):
        put(number)
    for number in (1, 2, 3):
        (tmp_path / f"a-{number:04d}.mkv").unlink()
    for number in (5, 6, 7):
        put(number)
    assert len(list(tmp_path.iterdir())) == 4


SERVICE = """
import sys
from itertools import count
from pathlib import Path
import numpy as np
from streaming import StillSource, still_result
from edgeseg.stream import JsonLines, Masks, Recording
from edgeseg.stream.sinks.retention import Budget, Rotation
out, budget, size = Path(sys.argv[1]), Budget(int(sys.argv[2])), int(sys.argv[3])
sinks = [
    JsonLines(out / "frames.jsonl", 0, Rotation(size), budget),
    Recording(out / "drive.mkv", overlay=False, codec="mjpeg", size=size, budget=budget),
    Masks(out / "masks", budget=budget),
]
for sink in sinks:
    sink.open([StillSource()])
noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
labels = np.zeros((96, 128), np.uint8)
for index in count():
    for sink in sinks:
        sink.write(still_result(labels, frame=noise, index=index, captured_at=index / 25))
    if index % 25 == 0:
        print(index, flush=True)
"""


def total(folder: Path) -> int:
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # deleted meanwhile
            continue
    return found


def test_a_service_that_is_killed_again_and_again_keeps_to_its_budget(tmp_path: Path) -> None:
    """Real processes and SIGKILL; in all they write several times what may stay."""
    budget, part = 4_000_000, 300_000
    (tmp_path / "masks").mkdir()
    (tmp_path / "notes.txt").write_bytes(b"precious")
    largest, seen = 0, 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(tmp_path), str(budget), str(part)],
            stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                largest = max(largest, total(tmp_path))
                if int(line) >= 400:
                    break
            child.kill()
            child.wait(60)
        seen += 400
    files = sorted(tmp_path.glob("frames-*.jsonl"), key=lambda path: path.name)
    documents = [
        json.loads(line)
        for path in (*files, tmp_path / "frames.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert largest <= budget + part, "the recording's own buffer is less than a part"
    assert largest > budget / 2, "nothing was deleted, since nothing was written"
    assert documents[-1]["frame"] >= 390
    assert len(list((tmp_path / "masks").iterdir())) < seen
    assert int(sorted(tmp_path.glob("drive-*.mkv"))[0].stem[-4:]) > 1
    assert (tmp_path / "notes.txt").read_bytes() == b"precious"


@pytest.mark.parametrize("coloured", [False, True])
def test_a_budget_neither_counts_nor_deletes_pictures_of_others(
    coloured: bool, tmp_path: Path
) -> None:
    for number in range(8):
        assert cv2.imwrite(str(tmp_path / f"{number:06d}.png"), LABELS)
    (tmp_path / "000008.png").write_bytes(b"not a PNG")
    others = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):  # the second finds masks of the first
        budget = Budget(3 * 4096)
        results = [still_result(LABELS, index=index) for index in range(4)]
        written(Masks(tmp_path, coloured=coloured, budget=budget), *results)
        assert budget.used == 3 * 4096
    ours = sorted({*tmp_path.iterdir()} - others.keys())
    assert [path.name for path in ours] == [f"{number:06d}.png" for number in (14, 15, 16)]
    assert all(path.read_bytes() == data for path, data in others.items())
    np.testing.assert_array_equal(load_ids(ours[0]), LABELS)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"minutes": 0.0}, {"minutes": float("nan")}])
def test_rotations_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="positive"):
        Rotation(**wrong)
    with pytest.raises(UsageError, match="positive"):
        Budget(0)
    with pytest.raises(UsageError, match="positive number of days"):
        Budget(days=0)


def aged(path: Path, days: float) -> Path:
    path.write_bytes(b"x")
    then = path.stat().st_mtime - days * 86_400
    os.utime(path, (then, then))
    return path


def test_files_older_than_the_age_limit_are_deleted_and_no_others(tmp_path: Path) -> None:
    gone = [aged(tmp_path / f"a-000{number}.mkv", 4 - number) for number in (1, 2)]
    kept = [aged(tmp_path / "a-0003.mkv", 0.9), aged(tmp_path / "a-note.mkv", 9)]
    budget = Budget(days=1)
    shelf = Shelf(tmp_path, parts_of(tmp_path / "a.mkv"), budget)
    active = aged(tmp_path / "a-0004.mkv", 9)
    shelf.grow(active, 1)
    shelf.scan()
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in (*kept, active))
    shelf.put(active, 1)
    assert active.exists(), "files leave in the order of their numbers"
    aged(kept[0], 2)
    shelf.scan()
    budget.add(0)
    assert [path.name for path in tmp_path.iterdir()] == ["a-note.mkv"]


def test_files_age_while_nothing_is_written(tmp_path: Path) -> None:
    budget = Budget(days=0.05 / 86_400)
    Shelf(tmp_path, parts_of(tmp_path / "a.mkv"), budget).scan()
    shelf = Shelf(tmp_path, parts_of(tmp_path / "b.mkv"), budget)
    shelf.scan()
    path = tmp_path / "b-0001.mkv"
    path.write_bytes(b"x")
    ahead = path.stat().st_mtime + 0.2
    os.utime(path, (ahead, ahead))
    shelf.put(path, 1)
    assert path.exists()
    sink = Expiry(budget)
    sink.open([LIVE])
    deadline = time.monotonic() + 30
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    sink.close()
    assert not path.exists()
    assert not any(thread.name == str(sink) for thread in threading.enumerate())


def test_the_age_limit_makes_parts_that_can_be_deleted(tmp_path: Path) -> None:
    keeping = Keeping(keep_days=10)
    files = Files(record=tmp_path / "a.mkv", codec="mjpeg")
    outputs = FileSinks([parse_source("test:")], files, keeping)
    (recorder,) = outputs.sinks()
    recorder.open([LIVE])
    recorder.close()
    assert [path.name for path in outputs.recorded()] == []
    assert outputs.recordings[0].path == tmp_path / "a-0001.mkv"
    assert keeping.rotation == Rotation(minutes=720)
    assert [str(sink) for sink in outputs.expiry()] == ["the age limit of files"]
    assert FileSinks([], files, Keeping(keep_bytes=10**9)).expiry() == []
