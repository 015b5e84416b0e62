"""Network cameras that nobody should trust, and what they get: no password, no time, no stream."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.engines.base import Engine
from edgeseg.errors import AuthFailed, EdgesegError, OpenFailed, UsageError
from edgeseg.sources.capture import open_frames
from edgeseg.sources.network import redirected
from edgeseg.stream import SourceLimits, Stream, StreamOptions, parse_source

pytestmark = pytest.mark.usefixtures("through")

PATIENT = SourceLimits(open_s=20, read_s=30, stalled_s=30, backoff_s=(0.05,))
SECRET = "hunter2-QXZ"
MULTIPART = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"


def jpeg(width: int, height: int, shade: int = 90) -> bytes:
    picture = np.full((height, width, 3), shade, np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def camera_of(pictures: Sequence[bytes], seen: list[bytes]) -> Callable[[socket.socket], None]:
    """An MJPEG camera that sends these for ever, and keeps the requests."""

    def serve(connection: socket.socket) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(MULTIPART)
        while True:
            for data in pictures:
                head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
                connection.sendall(head + data + b"\r\n")

    return serve


def answering(text: Callable[[bytes], str], seen: list[bytes]) -> Callable[[socket.socket], None]:
    """A server that answers each request of a connection."""

    def serve(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            seen.append(request)
            connection.sendall(text(request).encode("latin-1"))

    return serve


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca.pem``, and signed by it ``right`` (127.0.0.1), ``wrong`` (another name), ``old``."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA")
    own = ["-addext", "subjectAltName=IP:127.0.0.1", "-subj", "/CN=self"]
    openssl("req", "-x509", *key, "-keyout", "self.key", "-out", "self.pem", *own)
    for name, san, days in (
        ("right", "IP:127.0.0.1", "2"),
        ("wrong", "DNS:camera.example", "2"),
        ("old", "IP:127.0.0.1", "0"),
    ):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=x")
        (folder / "san").write_text(f"subjectAltName={san}")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san"]
        dates = ["-days", days]
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, *dates, "-out", f"{name}.pem")
    return folder


def context_of(certificates: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return context


def stream_of(url: str, engine: Engine, **options: Any) -> Stream:
    spec = replace(parse_source(url), limits=PATIENT)
    return Stream(spec, engine, StreamOptions(max_frames=2, **options))


def failure(stream: Stream) -> EdgesegError:
    with pytest.raises(EdgesegError) as failed:
        list(stream)
    assert SECRET not in f"{failed.value!r}{failed.value.hint}{failed.value.__context__!r}"
    return failed.value


@pytest.mark.parametrize(
    ("name", "ca", "why"),
    [
        ("right", None, "certificate"),
        ("self", "ca.pem", "self"),
        ("wrong", "ca.pem", "not valid for '127.0.0.1'"),
        ("old", "ca.pem", "expired"),
    ],
)
def test_a_certificate_that_is_not_right_is_refused_before_the_password_is_sent(
    name: str,
    ca: str | None,
    why: str,
    certificates: Path,
    listener: Callable[..., Any],
    grey_engine: Engine,
) -> None:
    seen: list[bytes] = []
    server = listener(camera_of([jpeg(64, 48)], seen), context_of(certificates, name))
    url = f"https://user:{SECRET}@127.0.0.1:{server.port}/mjpeg"
    error = failure(stream_of(url, grey_engine, ca=ca and certificates / ca))
    assert isinstance(error, OpenFailed)
    assert f"certificate of 127.0.0.1:{server.port} (SHA-256 " in error.message
    assert why in error.message
    assert f"--insecure-camera 127.0.0.1:{server.port}" in str(error.hint)
    assert not any(seen)


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
def test_tls_is_verified_for_both_protocols(
    scheme: str, certificates: Path, listener: Callable[..., Any], grey_engine: Engine
) -> None:
    seen: list[bytes] = []
    server = listener(camera_of([], seen), context_of(certificates, "wrong"))
    url = f"{scheme}://127.0.0.1:{server.port}/live"
    assert "certificate" in failure(stream_of(url, grey_engine)).message
    assert not any(seen)


@pytest.mark.parametrize(("name", "ca"), [("right", "ca.pem"), ("self", "self.pem")])
def test_a_private_authority_or_the_certificate_itself_is_trusted(
    name: str, ca: str, certificates: Path, listener: Callable[..., Any], grey_engine: Engine
) -> None:
    server = listener(camera_of([jpeg(64, 48)], []), context_of(certificates, name))
    stream = stream_of(f"https://127.0.0.1:{server.port}/", grey_engine, ca=certificates / ca)
    assert [result.frame.shape for result in stream] == [(48, 64, 3)] * 2


def test_a_camera_is_insecure_by_name(
    certificates: Path, listener: Callable[..., Any], grey_engine: Engine
) -> None:
    server = listener(camera_of([jpeg(64, 48)], []), context_of(certificates, "wrong"))
    url = f"https://127.0.0.1:{server.port}/"
    assert len(list(stream_of(url, grey_engine, insecure_camera=("127.0.0.1",)))) == 2
    with pytest.raises(UsageError, match=r"front: no https:// or rtsps:// source"):
        stream_of(url, grey_engine, insecure_camera=("front",))


def test_a_file_without_certificates_is_said(tmp_path: Path, grey_engine: Engine) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(UsageError, match="expected certificates"):
        stream_of("https://127.0.0.1/", grey_engine, ca=tmp_path / "ca.pem")


def moved(location: str) -> Callable[[bytes], str]:
    """Answers 302, in the protocol of the request."""

    def answer(request: bytes) -> str:
        if request.startswith(b"OPTIONS"):
            return "RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"
        version = "RTSP/1.0" if b"RTSP/1.0" in request else "HTTP/1.1"
        return f"{version} 302 Moved\r\nCSeq: 2\r\nLocation: {location}\r\n\r\n"

    return answer


def wanting_a_password(request: bytes) -> str:
    version = "RTSP/1.0" if b"RTSP/1.0" in request else "HTTP/1.1"
    return f'{version} 401 No\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_password_follows_no_redirect(
    scheme: str, listener: Callable[..., Any], grey_engine: Engine
) -> None:
    stolen: list[bytes] = []
    thief = listener(answering(wanting_a_password, stolen))
    first = listener(answering(moved(f"{scheme}://127.0.0.1:{thief.port}/stolen"), []))
    url = f"{scheme}://user:{SECRET}@127.0.0.1:{first.port}/live"
    error = failure(stream_of(url, grey_engine))
    assert isinstance(error, AuthFailed)
    assert "passwords follow no redirect" in error.message
    assert stolen
    assert not [request for request in stolen if b"authorization" in request.lower()]


def test_redirects_go_on_where_they_may() -> None:
    spec = parse_source(f"https://user:{SECRET}@front/live?x=1")
    assert redirected(spec, "/other").target == f"https://user:{SECRET}@front/other"
    assert redirected(spec, "https://a:b@left/live").target == "https://left/live"
    assert redirected(spec, "https://front:444/live").target == "https://front:444/live"
    plain = parse_source(f"http://user:{SECRET}@front/live")
    assert redirected(plain, "https://front/live").target == f"https://user:{SECRET}@front/live"
    for away in ("http://front/live", "file:///etc/passwd", "rtsps://front/live"):
        with pytest.raises(OpenFailed):
            redirected(spec, away)


def test_redirects_in_a_circle_end(listener: Callable[..., Any], grey_engine: Engine) -> None:
    server = listener(answering(moved("/again"), []))
    error = failure(stream_of(f"http://127.0.0.1:{server.port}/", grey_engine))
    assert "redirects more than" in error.message


def drip_headers(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X")
        time.sleep(0.05)  # slow, as what it plays


def endless_headers(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-a: b\r\n" * 1000)


def drip_body(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(MULTIPART)
    while True:
        connection.sendall(b"-")
        time.sleep(0.05)


def never_shake_hands(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB …
    while True:
        connection.sendall(b"\x02")  # … a byte at a time
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("scheme", "serve"),
    [
        ("http", drip_headers),
        ("http", endless_headers),
        ("http", drip_body),
        ("https", never_shake_hands),
        ("rtsps", never_shake_hands),
    ],
)
def test_opening_ends_whatever_the_server_does(
    scheme: str, serve: Callable[[socket.socket], None], listener: Callable[..., Any]
) -> None:
    spec = parse_source(f"{scheme}://user:{SECRET}@127.0.0.1:{listener(serve).port}/live")
    failed: list[BaseException] = []

    def opened() -> None:
        try:
            open_frames(replace(spec, limits=replace(PATIENT, open_s=0.5)))
        except OpenFailed as error:
            failed.append(error)

    thread = threading.Thread(target=opened, daemon=True)
    thread.start()
    thread.join(20)  # on today's machines it takes half a second
    assert failed


def test_a_name_that_never_resolves_ends_in_time(
    monkeypatch: pytest.MonkeyPatch, grey_engine: Engine
) -> None:
    answer = threading.Event()
    monkeypatch.setattr(
        "edgeseg.sources.relay.socket.getaddrinfo", lambda *_, **__: answer.wait(30) or []
    )
    spec = replace(parse_source("rtsp://front/live"), limits=replace(PATIENT, open_s=0.2))
    error = failure(Stream(spec, grey_engine))
    answer.set()
    assert "did not answer in time" in error.message


def test_what_a_server_writes_moves_no_cursor(
    listener: Callable[..., Any], grey_engine: Engine
) -> None:
    answer = moved("http://127.0.0.1:1/\x1b[2J\xff\xe9/?token=QXZ")
    server = listener(answering(answer, []))
    error = failure(stream_of(f"http://127.0.0.1:{server.port}/", grey_engine))
    assert (error.message + str(error.hint)).isprintable()
    assert "QXZ" not in error.message


def test_frames_of_absurd_sizes_are_left_out(
    through: str,
    listener: Callable[..., Any],
    grey_engine: Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if through == "opencv":
        pytest.skip("OpenCV stretches each frame to the size of the first")
    pictures = [jpeg(1, 1), jpeg(64, 48), jpeg(400, 300), jpeg(64, 48)]
    server = listener(camera_of(pictures, []))
    spec = replace(parse_source(f"http://127.0.0.1:{server.port}/"), limits=PATIENT)
    options = StreamOptions(max_frames=5, max_pixels=100 * 100, realtime=False)
    with Stream(spec, grey_engine, options) as stream:
        shapes = {result.frame.shape for result in stream}
        bad = stream.sources[0].bad_frames
    assert shapes == {(48, 64, 3)}
    assert bad >= 2
    assert "smaller than 16 pixels" in caplog.text
    assert "more than 10000 pixels" in caplog.text


def test_running_out_of_memory_ends_no_camera(
    camera: Any, grey_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = iter(range(1000))

    def once_too_large(self: Any) -> Any:
        if next(reads) == 3:
            raise MemoryError
        return self._frames.read()

    monkeypatch.setattr("edgeseg.sources.network._Relayed.read", once_too_large)
    spec = replace(parse_source(camera.url), limits=PATIENT)
    with Stream(spec, grey_engine, StreamOptions(max_frames=8)) as stream:
        assert len(list(stream)) == 8
        assert stream.sources[0].reconnects == 1


@pytest.mark.parametrize(
    ("stated", "rest", "told"),
    [(0.5, b"", True), (2, b"", True), (1, b"", False), (1, b"--b\r\nConte", False)],
)
def test_a_content_length_that_is_wrong_is_named(
    stated: float,
    rest: bytes,
    told: bool,
    through: str,
    listener: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    if through == "opencv":
        pytest.skip("OpenCV does not say why it stops")
    data = jpeg(64, 48)

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
        parts = (head % int(stated * len(data)) + data + b"\r\n") * 6
        connection.sendall(MULTIPART + parts + rest)

    spec = replace(parse_source(f"http://127.0.0.1:{listener(serve).port}/"), limits=PATIENT)
    frames = open_frames(spec)
    while frames.read() is not None:
        pass
    frames.close()
    assert ("Content-Length" in caplog.text) == told
