"""A network whose right answer is known for every picture, and videos to run it on."""

import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import threshold_network

from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine

HEIGHT, WIDTH = 48, 64


@pytest.fixture
def not_under_nohup() -> Iterator[None]:
    """SIGHUP as a terminal's programs have it, which ``nohup`` would let them ignore."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def largest() -> Iterator[Callable[[int], None]]:
    """``largest(bytes)``: as much of a file fits on the disk; -1 for any."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def bright_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:func:`streaming.threshold_network` in a file."""
    path = tmp_path_factory.mktemp("bright") / "bright.onnx"
    return threshold_network(path, HEIGHT, WIDTH)


@pytest.fixture
def engine(bright_network: Path) -> Iterator[Engine]:
    """ONNX Runtime with ``bright_network``."""
    with open_engine(bright_network, threads=1) as opened:
        yield opened


def step_frame(index: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> NDArray[np.uint8]:
    """Black, white from a column on that moves right with ``index``."""
    frame = np.zeros((size[1], size[0], 3), np.uint8)
    frame[:, (index * 2) % size[0] :] = 255
    return frame


def write_video(path: Path, frames: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    writer = cv2.VideoWriter()
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    assert writer.open(str(path), cv2.CAP_FFMPEG, codec, 25.0, size)
    for index in range(frames):
        writer.write(step_frame(index, size))
    writer.release()
    return path


def read_video(path: Path) -> list[NDArray[np.uint8]]:
    """All frames that OpenCV can read."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while True:
        found, frame = capture.read()
        if not found:
            break
        frames.append(np.asarray(frame, np.uint8))
    capture.release()
    return frames


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """``make_video(frames, size=(64, 48), name="video.mkv") -> path`` of :func:`step_frame`."""

    def make(frames: int, size: tuple[int, int] = (WIDTH, HEIGHT), name: str = "video.mkv") -> Path:
        return write_video(tmp_path / name, frames, size)

    return make


@pytest.fixture
def play() -> Callable[[Path], list[NDArray[np.uint8]]]:
    """:func:`read_video`."""
    return read_video


@pytest.fixture
def step() -> Callable[..., NDArray[np.uint8]]:
    """:func:`step_frame`."""
    return step_frame


@pytest.fixture
def truncated(make_video: Callable[..., Path], tmp_path: Path) -> Path:
    """A Matroska file that declares 100 frames and ends in the middle."""
    whole = make_video(100, name="whole.mkv").read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    return path
