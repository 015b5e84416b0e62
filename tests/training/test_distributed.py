"""Several processes: a real torchrun on loopback, against one process, and with one killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from edgeseg.errors import UsageError
from edgeseg.options.training import Recipe, TrainConfig
from edgeseg.training.distributed import Processes, joined, rank
from edgeseg.training.loop import train

ROOT = Path(__file__).parents[2]


def configuration(data: Path, run: Path) -> TrainConfig:
    """No BatchNorm, no dropout, no augmentation: the rest is the same however it is divided."""
    return TrainConfig(
        data,
        run,
        arch="unet",
        options={"width": 8, "depth": 1, "dropout": 0.0},
        size=(32, 32),
        recipe=Recipe(epochs=2, batch_size=3, accumulate=2, augmentation=None, autocast="off"),
    )


def environment(**changes: str) -> dict[str, str]:
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    common = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    return os.environ | common | changes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.timeout(240)
def test_two_processes_learn_what_one_does(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of three: the first process has two pictures of each, the second has one.

    The first is this one; the second runs this file with what torchrun would tell it.
    """
    one = train(configuration(small_data, tmp_path / "one"))
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    second = subprocess.Popen(
        [sys.executable, __file__, str(small_data), str(tmp_path / "none")],
        env=environment(**group, RANK="1", LOCAL_RANK="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for name, value in (group | {"RANK": "0", "LOCAL_RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    two = train(configuration(small_data, tmp_path / "two"))
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (0, ""), err
    assert not (tmp_path / "none").exists()
    assert len(two.history) == 2
    for ours, theirs in zip(one.history, two.history, strict=True):
        assert theirs.loss == pytest.approx(ours.loss, rel=1e-5)
        assert theirs.mean_iou == pytest.approx(ours.mean_iou, abs=1e-3)
        assert theirs.pixel_accuracy == pytest.approx(ours.pixel_accuracy, abs=1e-3)
    # Sums in another order, and AdamW divides by the size of the gradient.
    last = [load_file(tmp_path / name / "last.safetensors") for name in ("one", "two")]
    assert all(torch.allclose(last[1][k], v, atol=1e-4) for k, v in last[0].items())


@pytest.fixture
def endless(small_data: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A torchrun of two processes in a training that takes longer than any test."""
    line = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("-m", "--", "edgeseg", "train", "--data", str(small_data), "--size", "32x32"),
        *("--run", str(tmp_path / "run"), "--width", "8", "--depth", "1", "--epochs", "100000"),
    ]
    with (tmp_path / "log").open("wb") as log:
        job = subprocess.Popen(line, env=environment(), stderr=log)
    try:
        yield job
    finally:
        for child in psutil.Process(job.pid).children(recursive=True) if job.poll() is None else ():
            child.kill()
        job.kill()
        job.wait()


@pytest.mark.timeout(240)
def test_a_dead_process_ends_the_job(endless: subprocess.Popen[bytes], tmp_path: Path) -> None:
    state = tmp_path / "run" / "state.safetensors"
    deadline = time.monotonic() + 150
    while not state.exists():
        assert endless.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            endless.wait(timeout=0.1)
    workers = psutil.Process(endless.pid).children()
    victim = next(one for one in workers if one.environ().get("RANK") == "1")
    victim.send_signal(signal.SIGKILL)
    assert endless.wait(timeout=60) != 0
    assert not any(one.is_running() and one.status() != "zombie" for one in workers)
    assert load_file(tmp_path / "run" / "model.safetensors")
    log = (tmp_path / "log").read_text()
    assert log.count("epoch      1/100000") == 1  # only the first process speaks


def test_one_process_alone_needs_no_group() -> None:
    with joined() as processes:
        assert processes == Processes(0, 1)
        value = torch.ones(2, requires_grad=True)
        assert processes.total(value) is value
        assert processes.share([0.25, 3]) == [0.25, 3]
        model = torch.nn.Linear(1, 1)
        assert processes.wrap(model) is model
    assert rank() == 0


def test_a_batch_must_have_a_picture_for_each() -> None:
    Processes(0, 4).check(batch_size=4)
    with pytest.raises(UsageError, match="a batch of 3 cannot be divided among 4") as caught:
        Processes(0, 4).check(batch_size=3)
    assert "--batch-size 4" in (caught.value.hint or "")


class Second(Processes):
    """The second of two, where the first has done three epochs."""

    def share(self, values: Sequence[float]) -> list[float]:
        return [3.0]


def test_all_go_on_after_the_same_epoch() -> None:
    Second(1, 2).check_epochs(3)
    with pytest.raises(UsageError, match="process 1 of 2 finds 0 epochs") as caught:
        Second(1, 2).check_epochs(0)
    assert "share" in (caught.value.hint or "")
    Processes().check_epochs(7)


if __name__ == "__main__":
    train(configuration(*map(Path, sys.argv[1:])), on_epoch=print)
