"""One unit through the engine, as every worker does it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from archive_cases import make_video

from edgeseg.archive import ArchiveConfig, segment_archive
from edgeseg.archive.journal import Journal, Pending
from edgeseg.archive.run import make_job
from edgeseg.archive.units import Unit, find_units
from edgeseg.archive.work import TRIES, Desk, Job, raise_refusal
from edgeseg.data.decode import load_ids
from edgeseg.errors import InferenceError, MismatchedArtifact, UsageError
from edgeseg.inference import segment_files
from edgeseg.loading import load
from edgeseg.options.inference import Outputs


@pytest.fixture
def job(config: Callable[..., ArchiveConfig], tmp_path: Path) -> Job:
    tries = tmp_path / "out/journal/tries"
    tries.mkdir(parents=True)
    return make_job(config(), tries)


def one(path: Path) -> Pending:
    (unit,) = find_units([str(path)], Path("/nowhere"))
    return Pending(unit=unit)


def test_files_are_those_of_one_process(
    job: Job, pictures: Path, engine: Path, tmp_path: Path
) -> None:
    found = sorted(pictures.rglob("*.png"))[:3]
    outputs = Outputs(tmp_path / "alone", coloured=True)
    with load(engine, threads=1) as alone:
        segment_files(alone, found, outputs)
    desk = Desk(job.model_copy(update={"outputs": Outputs(tmp_path / "out", coloured=True)}))
    for path in found:
        assert desk.do(one(path)).record is not None
        for part in ("labels", "overlay"):
            name = f"{path.stem}.{part}.png"
            assert (tmp_path / "out" / name).read_bytes() == (outputs.folder / name).read_bytes()


def test_facts_are_those_of_the_label_map(job: Job, pictures: Path, tmp_path: Path) -> None:
    path = min(pictures.rglob("*.png"))
    record = Desk(job).do(one(path)).record
    assert record is not None
    (result,) = record.results
    labels = load_ids(tmp_path / "out" / f"{path.stem}.labels.png")
    nuclei, _ = cv2.connectedComponents((labels == 1).astype(np.uint8), connectivity=8)
    assert (result.height, result.width) == labels.shape == cv2.imread(str(path)).shape[:2]
    assert result.pixels == tuple(np.sum(labels == label) for label in (0, 1))
    assert result.regions == (0, nuclei - 1)
    assert Journal(tmp_path / "out").read() == {path.stem: record}


def test_another_option_is_other_work(config: Callable[..., ArchiveConfig], tmp_path: Path) -> None:
    changes = ({}, {"tiles": True}, {"tiles": True, "margin": 8}, {"every": 2})
    works = [make_job(config(**change), tmp_path).work for change in changes]
    outputs = Outputs(tmp_path / "out", overlays=False)
    for change in ({"opacity": 0.25}, {"overlays": True}, {"coloured": True}):
        changed = replace(config(), outputs=replace(outputs, **change))
        works.append(make_job(changed, tmp_path).work)
    assert len(set(works)) == 7
    assert make_job(config(), tmp_path / "elsewhere").work == works[0]


@pytest.mark.parametrize("every", [1, 7])
def test_frames_of_a_video(job: Job, engine: Path, tmp_path: Path, every: int) -> None:
    video = make_video(tmp_path / "v.mp4", 60)
    desk = Desk(job.model_copy(update={"every": every}))
    unit = Unit(name="v.mp4", source=str(video), first=14, last=42)
    record = desk.do(Pending(unit=unit)).record
    assert record is not None
    with av.open(str(video)) as container, load(engine, threads=1) as alone:
        for number, frame in enumerate(container.decode(video=0)):
            path = tmp_path / f"out/v.mp4/{number:06d}.labels.png"
            wanted = number in range(14, 42, every)
            assert path.exists() == wanted
            if wanted:
                expected = alone.segment(frame.to_ndarray(format="bgr24"))
                assert np.array_equal(load_ids(path), expected)
    assert [result.frame for result in record.results] == list(range(14, 42, every))


def test_the_same_bytes_at_another_time_are_not_done_again(
    job: Job, pictures: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copyfile(min(pictures.rglob("*.png")), tmp_path / "a.png"))
    desk = Desk(job)
    record = desk.do(one(path)).record
    written = tmp_path / "out/a.labels.png"
    written.write_bytes(b"as it was")
    shutil.copyfile(path, tmp_path / "again.png")
    (tmp_path / "again.png").replace(path)
    again = desk.do(one(path).model_copy(update={"known": record})).record
    assert record is not None
    assert again is not None
    assert again == record.model_copy(update={"mtime_ns": path.stat().st_mtime_ns})
    assert written.read_bytes() == b"as it was"
    shutil.copyfile(max(pictures.rglob("*.png")), path)
    other = desk.do(one(path).model_copy(update={"known": record})).record
    assert other is not None
    assert other.sha256 != record.sha256
    assert written.read_bytes() != b"as it was"


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", None])
def test_a_file_that_fails_is_a_failure_and_leaves_nothing(
    job: Job, tmp_path: Path, data: bytes | None
) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(data or b"x")
    pending = one(path)
    if data is None:
        path.unlink()
    outcome = Desk(job).do(pending)
    assert outcome.record is None
    assert outcome.refusal is None
    assert outcome.failure is not None
    assert outcome.failure.kind == "DatasetError"
    assert str(path) in outcome.failure.message
    assert not list((tmp_path / "out").glob("*.png"))
    assert not list(Path(job.tries).iterdir())


def test_what_kills_its_worker_is_given_up(job: Job, pictures: Path) -> None:
    pending = one(min(pictures.rglob("*.png")))

    class Dying(Desk):
        def _outcome(self, pending: Pending, count: int) -> object:  # type: ignore[override]
            raise SystemExit(count)

    for count in range(1, TRIES + 1):
        with pytest.raises(SystemExit, match=str(count)):
            Dying(job).do(pending)
    failure = Desk(job).do(pending).failure
    assert failure is not None
    assert (failure.kind, failure.tries) == ("WorkerDied", TRIES)
    assert Desk(job).do(pending).record is not None  # counted anew


def test_a_disk_that_refuses_is_no_fault_of_a_file(
    job: Job, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    outputs = Outputs(tmp_path / "out/file/below")
    (tmp_path / "out/file").write_bytes(b"")
    desk = Desk(job)
    desk.job = job.model_copy(update={"outputs": outputs})
    outcome = desk.do(one(min(pictures.rglob("*.png"))))
    assert outcome.failure is None
    assert outcome.refusal is not None
    with pytest.raises(UsageError, match="cannot write"):
        raise_refusal(outcome.refusal)


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"version": "0.0.1"}, MismatchedArtifact, "the run was started by 0.0.1"),
        ({"engine_sha256": "0" * 64}, MismatchedArtifact, "another file there"),
        ({"tries": "/nowhere"}, UsageError, "a worker does not see"),
        ({"engine": "/nowhere.onnx"}, UsageError, "no such file"),
    ],
)
def test_a_worker_that_sees_something_else(
    job: Job, change: dict[str, str], kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        Desk(job.model_copy(update=change))


def test_a_network_that_fails_on_one_picture(job: Job, pictures: Path) -> None:
    desk = Desk(job)

    def fail(image: np.ndarray) -> np.ndarray:
        raise InferenceError("no labels")

    desk._segment = fail
    outcome = desk.do(one(min(pictures.rglob("*.png"))))
    assert outcome.failure is not None
    assert outcome.failure.message == "no labels"


def test_results_of_another_kind_of_run_are_not_replaced(
    config: Callable[..., ArchiveConfig], pictures: Path, tmp_path: Path
) -> None:
    """Without a journal nothing says that they may be; with one a run goes on."""
    kept = tmp_path / "out" / min(pictures.rglob("*.png")).relative_to(pictures)
    kept = kept.with_suffix(".labels.png")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    with pytest.raises(UsageError, match="already exists"):
        segment_archive(config(pictures))
    assert kept.read_bytes() == b"mine"
    assert not (tmp_path / "out/journal").exists()
