"""Servers on loopback that misbehave for real, and an engine quick enough for them."""

import hashlib
import logging
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cameras import PASSWORD, USER, MjpegCamera
from numpy.typing import NDArray
from streaming import Grey
from typing_extensions import Self

from edgeseg.engines.base import Engine


def free_port() -> int:
    """A port that nobody listens on; for servers that cannot say which they were given."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


BITS = 8
"""Bars a picture of :func:`numbered_video`; its numbers go round at 256."""


def numbered_video(path: Path, frames: int = 200, size: tuple[int, int] = (160, 96)) -> Path:
    """H.264 at 25 a second; bar b of frame n is white where bit b of n is set."""
    import av

    width = size[0] // BITS
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"tune": "zerolatency", "preset": "ultrafast", "g": "5"}
        for number in range(frames):
            picture = np.zeros((size[1], size[0], 3), np.uint8)
            for bit in range(BITS):
                picture[:, bit * width : (bit + 1) * width] = 255 * (number >> bit & 1)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        out.mux(stream.encode())
    return path


def number_of(frame: NDArray[np.uint8]) -> int:
    """The number that the bars of a frame of :func:`numbered_video` show."""
    means = frame.reshape(frame.shape[0], BITS, -1).mean(axis=(0, 2))
    return int(sum(1 << bit for bit in range(BITS) if means[bit] > 127))


class RtspCamera:
    """An RTSP camera in a process of its own; each client sees ``video`` from its first frame on.

    Needs aio-rtsp-toolkit[server].
    """

    def __init__(self, video: Path) -> None:
        self.port = free_port()
        self.url = f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{video.name}?play_count=0"
        self._folder = video.parent
        self._process: subprocess.Popen[bytes] | None = None
        # A loss is noticed, and the camera switched on again by another thread, while it dies.
        self._switching = threading.Lock()

    def __enter__(self) -> Self:
        self.switch_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def switch_on(self) -> None:
        """Start it, on the same port each time, and wait until it listens."""
        with self._switching:
            self._start()

    def _start(self) -> None:
        command = [str(Path(sys.executable).with_name("rtsp-server")), "--dir", str(self._folder)]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--control-port", str(free_port())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self._process.poll() is None, "rtsp-server ended"
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.02)
        raise AssertionError("rtsp-server does not listen")

    def kill(self) -> None:
        """SIGKILL: the connections break."""
        with self._switching:
            if self._process is not None:
                self._process.kill()
                self._process.wait(30)
                self._process = None

    def freeze(self) -> None:
        """SIGSTOP: the connections stay, and the kernel still accepts new ones."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("av", reason="needs aio-rtsp-toolkit[server]")
    return numbered_video(tmp_path_factory.mktemp("rtsp") / "numbered.mp4")


@pytest.fixture
def rtsp_camera(numbered: Path) -> Iterator[RtspCamera]:
    if not Path(sys.executable).with_name("rtsp-server").exists():
        pytest.skip("needs aio-rtsp-toolkit[server]")
    with RtspCamera(numbered) as started:
        yield started


@pytest.fixture
def number() -> Callable[[NDArray[np.uint8]], int]:
    """:func:`number_of`."""
    return number_of


@pytest.fixture
def more_cameras() -> Iterator[Callable[[], MjpegCamera]]:
    """``more_cameras() -> MjpegCamera``, as many as a test wants, switched off at the end."""
    made: list[MjpegCamera] = []

    def make() -> MjpegCamera:
        made.append(MjpegCamera(fps=15))
        made[-1].switch_on()
        return made[-1]

    yield make
    for each in made:
        each.switch_off()


class Listener:
    """Hands each connection, over TLS where there is a context, to ``serve`` in a thread."""

    def __init__(
        self, serve: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
    ) -> None:
        self._serve, self._context = serve, context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                self._serve(connection)
        except OSError:
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def listener() -> Iterator[Callable[..., Listener]]:
    """``listener(serve, context=None) -> Listener``, closed at the end."""
    made: list[Listener] = []

    def make(*arguments: Any) -> Listener:
        made.append(Listener(*arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def responder(listener: Callable[..., Listener]) -> Callable[[Callable[[str], str]], Listener]:
    """``responder(lambda request: "HTTP/1.1 404 …")``, which hangs up after its answer."""

    def make(answer: Callable[[str], str]) -> Listener:
        def serve(connection: socket.socket) -> None:
            connection.sendall(answer(connection.recv(4096).decode("latin-1")).encode())

        return listener(serve)

    return make


def status(request: str, code: int, *headers: str) -> str:
    """A bare answer in the protocol of the request."""
    version = "RTSP/1.0" if "RTSP/1.0" in request else "HTTP/1.1"
    lines = [f"{version} {code} Whatever", "CSeq: 1", "Content-Length: 0", *headers]
    return "\r\n".join(lines) + "\r\n\r\n"


def digest_guard(request: str, password: str, code: int) -> str:
    """401 with a Digest challenge until the answer is right (RFC 7616 with MD5), then ``code``."""
    given = dict(re.findall(r'(\w+)="?([^",\r]*)"?', request.partition("Digest ")[2]))
    method = request.split(maxsplit=1)[0]
    md5 = lambda text: hashlib.md5(text.encode()).hexdigest()  # noqa: E731
    who, what = md5(f"{USER}:cam:{password}"), md5(f"{method}:{given.get('uri')}")
    middle = f"abc:{given.get('nc')}:{given.get('cnonce')}:auth"
    if given.get("response") == md5(f"{who}:{middle}:{what}"):
        return status(request, code)
    challenge = 'WWW-Authenticate: Digest realm="cam", nonce="abc", qop="auth", opaque="o"'
    return status(request, 401, challenge)


@pytest.fixture
def answers() -> Any:
    """The two kinds of answers: ``answers.status``, ``answers.digest_guard``."""
    return type("Answers", (), {"status": status, "digest_guard": digest_guard})


@pytest.fixture(params=["pyav", "opencv"])
def through(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that reads network cameras."""
    name: str = request.param
    if name == "pyav":
        pytest.importorskip("av", reason="PyAV is not installed")
    else:
        monkeypatch.setattr("edgeseg.sources.capture.have_pyav", lambda: False)
    return name


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    with MjpegCamera() as started:
        yield started


@pytest.fixture
def locked_camera() -> Iterator[MjpegCamera]:
    """One that wants ``PASSWORD``, as its URL has it."""
    with MjpegCamera(password=PASSWORD) as started:
        yield started


@pytest.fixture
def password() -> str:
    return PASSWORD


@pytest.fixture
def no_password_anywhere(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """After the test: nothing on fd 1 and 2 and in the whole log holds the password."""
    caplog.set_level(logging.DEBUG)
    yield
    out, err = capfd.readouterr()
    assert PASSWORD not in out + err + caplog.text


@pytest.fixture
def grey_engine() -> Engine:
    return Grey()
