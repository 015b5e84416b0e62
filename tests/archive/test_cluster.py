"""Archives on a real local Ray of two workers: nothing is lost, nothing counts twice."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from archive_cases import make_video

from edgeseg.archive import ArchiveConfig, segment_archive
from edgeseg.archive.cluster import Cluster, Worker
from edgeseg.archive.journal import Journal, Pending
from edgeseg.archive.work import TRIES, Desk, Job, Outcome
from edgeseg.data.decode import load_ids
from edgeseg.errors import DeviceError
from edgeseg.inference import segment_files
from edgeseg.loading import load
from edgeseg.options.inference import Outputs

ROOT = Path(__file__).parents[2]
ONE = Cluster("local", workers=1)
# Ray Data sets and warns of options of its own that are to go; a socket of Ray's is left to gc.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("ray"),
    pytest.mark.timeout(240),
]
Make = Callable[..., ArchiveConfig]


@pytest.fixture(scope="module")
def alone(
    pictures: Path, engine: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Stem → label map as one process without a cluster writes it."""
    out = tmp_path_factory.mktemp("alone")
    with load(engine, threads=1) as opened:
        segment_files(opened, sorted(pictures.rglob("*.png")), Outputs(out, overlays=False))
    return {path.name.removesuffix(".labels.png"): path.read_bytes() for path in out.iterdir()}


def written(out: Path) -> dict[str, bytes]:
    """Stem → label map, wherever it lies below the output folder."""
    return {
        path.name.removesuffix(".labels.png"): path.read_bytes()
        for path in out.rglob("*.labels.png")
    }


def table(out: Path) -> list[dict[str, str]]:
    with (out / "pictures.csv").open() as stream:
        return list(csv.DictReader(stream))


def failures(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]


def check_totals(out: Path, alone: dict[str, bytes]) -> None:
    """Each label map stands in the table once, and the totals are those of the label maps."""
    assert sorted(Path(row["name"]).name for row in table(out)) == sorted(alone)
    summary = json.loads((out / "summary.json").read_text())
    labels = [load_ids(path) for path in out.rglob("*.labels.png")]
    for index, total in enumerate(summary["classes"]):
        assert total["pixels"] == sum(int(np.sum(each == index)) for each in labels)
        assert total["label_maps"] == sum(bool(np.any(each == index)) for each in labels)


def test_as_one_process_though_a_worker_is_killed_and_then_only_what_is_new(
    config: Make, pictures: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(pictures, archive)
    (archive / "bad.png").write_bytes(b"no picture")
    make_video(archive / "v.mp4", 10)
    killed: list[int] = []

    def kill_the_first(items: Iterable[Outcome], *_: object) -> Iterator[Outcome]:
        for outcome in items:
            if not killed and outcome.record is not None:
                killed.append(int(outcome.record.worker.split("-")[-2]))
                os.kill(killed[0], signal.SIGKILL)
            yield outcome

    first = segment_archive(config(archive, every=4), kill_the_first)
    assert not psutil.pid_exists(killed[0])
    out = tmp_path / "out"
    assert (first.units, first.done, first.kept, first.failed) == (26, 25, 0, 1)
    found = written(out)
    assert {stem: found.pop(stem) for stem in ("000000", "000004", "000008")}
    assert found == alone
    assert {path.parent.name for path in out.rglob("*.labels.png")} == {"a", "b", "v.mp4"}
    (failure,) = failures(out)
    assert failure["kind"] == "DatasetError"
    assert "bad.png" in failure["message"]

    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.labels.png")}
    shutil.copy(min(archive.rglob("*.png")), archive / "bad.png")
    changed = max((archive / "a").glob("*.png"))
    shutil.copy(archive / "bad.png", changed)
    second = segment_archive(config(archive, every=4, cluster=ONE))
    assert (second.units, second.done, second.kept, second.failed) == (26, 2, 24, 0)
    assert failures(out) == []
    assert len(table(out)) == second.label_maps == 28
    again = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert {path.name for path in again} == {f"{changed.stem}.labels.png"}
    assert segment_archive(config(archive, every=4)).done == 0


class PoisonedDesk(Desk):
    """Dies at one picture each time, at another the first time alone."""

    def _outcome(self, pending: Pending, count: int) -> Outcome:
        name = Path(pending.unit.source).stem
        if name == "poison" or (name == "once" and count == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._outcome(pending, count)


class Poisoned(Worker):
    desk = PoisonedDesk


class LostDesk(Desk):
    def __init__(self, job: Job) -> None:
        raise DeviceError("the GPU fell off", hint="put it back")


class Lost(Worker):
    desk = LostDesk


@pytest.fixture
def by_value(ray: Any) -> None:
    """Classes of this file reach the workers, which cannot import it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.mark.usefixtures("by_value")
def test_what_ends_a_run_and_what_kills_its_worker_each_time(
    config: Make, pictures: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(pictures, archive)
    victim = min(pictures.rglob("*.png"))
    for name in ("poison", "once"):
        shutil.copy(victim, archive / f"{name}.png")
    with pytest.raises(DeviceError, match="the GPU fell off") as caught:
        segment_archive(config(archive, cluster=ONE), worker=Lost)  # no fault of a file
    assert caught.value.hint == "put it back"
    summary = segment_archive(config(archive), worker=Poisoned)
    assert (summary.done, summary.failed) == (25, 1)
    assert summary.retried >= 1
    (failure,) = failures(tmp_path / "out")
    assert (failure["unit"]["name"], failure["kind"]) == ("poison", "WorkerDied")
    assert failure["tries"] == TRIES
    expected = alone | {"once": alone[victim.stem]}
    assert written(tmp_path / "out") == expected
    check_totals(tmp_path / "out", expected)
    # The next run tries it again, and only it.
    mended = segment_archive(config(archive, cluster=ONE))
    assert (mended.done, mended.kept, mended.failed) == (1, 25, 0)


@pytest.fixture
def command(engine: Path, pictures: Path, tmp_path: Path) -> list[str]:
    """Arguments of an archive's run on a cluster of its own, on a copy of the pictures."""
    archive = shutil.copytree(pictures, tmp_path / "archive")
    (archive / "bad.png").write_bytes(b"")
    line = ["infer", str(engine), str(archive), "--out", str(tmp_path / "out")]
    return [*line, "--cluster", "local", "--workers", "1", "--json"]


@pytest.fixture
def started(command: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], set[psutil.Process]]]:
    """The command itself with a Ray of its own, and all processes that it has started so far."""
    line = [sys.executable, "-m", "edgeseg", *command]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a path short enough for sockets
        changes = {"PYTHONPATH": paths, "TMPDIR": folder}
        run = subprocess.Popen(line, env=os.environ | changes, stderr=subprocess.DEVNULL)
        known: set[psutil.Process] = set()
        try:
            yield run, known
        finally:
            for process in (*known, run):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            run.wait()


def test_a_killed_command_goes_on(
    started: tuple[subprocess.Popen[bytes], set[psutil.Process]],
    command: list[str],
    edgeseg: Any,
    alone: dict[str, bytes],
    tmp_path: Path,
) -> None:
    run, known = started
    out = tmp_path / "out"
    deadline = time.monotonic() + 150
    while len(written(out)) < 4:
        assert run.poll() is None
        assert time.monotonic() < deadline
        known |= set(psutil.Process(run.pid).children(recursive=True))
        psutil.wait_procs([psutil.Process(run.pid)], timeout=0.05)
    run.kill()
    run.wait()
    # Two agents of Ray's, which have no part in the work, look about themselves once a minute.
    workers = [one for one in known if one.is_running() and "Agent" not in one.name()]
    assert not psutil.wait_procs(workers, timeout=60)[1]
    before = Journal(out).read()
    assert 0 < len(before) < 24
    whole = edgeseg(*command)  # on the cluster of these tests
    assert whole.code == 3, whole.err
    assert "failures.jsonl" in whole.err
    counts = [whole.document[name] for name in ("kept", "done", "failed")]
    assert counts == [len(before), 24 - len(before), 1]
    assert whole.document == json.loads((out / "summary.json").read_text())
    assert written(out) == alone
    check_totals(out, alone)
    assert len(list(out.rglob("*.overlay.png"))) == 24
