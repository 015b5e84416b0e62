"""A webhook against servers on loopback that fail, hang, refuse, redirect and lie."""

import base64
import hashlib
import hmac
import json
import logging
import queue
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgeseg.errors import UsageError
from edgeseg.stream.alerts import RetryLimits, Webhook

QUICK = RetryLimits(timeout_s=10, backoff_s=(0.01,), close_s=10)


class Receiver:
    """Answers each request with the next of ``answers``, the last again and again."""

    def __init__(self, *answers: int, context: ssl.SSLContext | None = None) -> None:
        self.requests: queue.Queue[tuple[dict[str, str], bytes, str]] = queue.Queue()
        receiver, left = self, list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.put((dict(self.headers), body, self.path))
                code = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(code)
                if 300 <= code < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: object) -> None: ...

        class Server(HTTPServer):
            def handle_error(self, *_: object) -> None: ...

        self.server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def bodies(self, count: int) -> list[Any]:
        return [json.loads(self.requests.get(timeout=20)[1]) for _ in range(count)]


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(*answers: int, **options: Any) -> Receiver:
        made.append(Receiver(*answers, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def no_secret_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert "hunter2" not in caplog.text
    assert "T0KEN" not in caplog.text


def hook(port: int, patience: RetryLimits = QUICK, **options: Any) -> Webhook:
    url = f"http://user:hunter2@127.0.0.1:{port}/T0KEN/a?key=T0KEN"
    made = Webhook(url, patience=patience, **options)
    made.open()
    return made


def test_events_come_in_order_with_credentials(receive: Callable[..., Receiver]) -> None:
    receiver = receive(204)
    webhook = hook(receiver.port)
    for number in range(3):
        webhook.send({"event": "raised", "frame": number, "class": "Füßgänger"})
    headers, body, path = receiver.requests.get(timeout=20)
    assert path == "/T0KEN/a?key=T0KEN"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:hunter2").decode()
    assert json.loads(body)["class"] == "Füßgänger"
    assert [each["frame"] for each in receiver.bodies(2)] == [1, 2]
    webhook.close()
    assert (webhook.delivered, webhook.lost) == (3, 0)


def test_a_failing_server_gets_the_same_event_until_it_accepts(
    receive: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    receiver = receive(503, 429, 200)
    webhook = hook(receiver.port)
    webhook.send({"frame": 1})
    webhook.send({"frame": 2})
    assert [each["frame"] for each in receiver.bodies(4)] == [1, 1, 1, 2]
    webhook.close()
    assert (webhook.delivered, webhook.lost) == (2, 0)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    name = f"the webhook at http://127.0.0.1:{receiver.port}"
    assert said == [
        ("WARNING", f"{name}: it answered 503; it is tried again"),
        ("INFO", f"{name}: delivers again"),
    ]


@pytest.mark.parametrize("code", [302, 400, 401, 404, 410])
def test_a_refusal_or_redirect_is_final(
    receive: Callable[..., Receiver], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = receive(code, 200)
    webhook = hook(receiver.port)
    webhook.send({"frame": 1})
    webhook.send({"frame": 2})
    assert [each["frame"] for each in receiver.bodies(2)] == [1, 2]
    webhook.close()
    assert (webhook.delivered, webhook.lost) == (1, 1)
    assert f"it answered {code}; the alert is lost" in caplog.text


def test_a_server_that_hangs_blocks_neither_the_sender_nor_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        webhook = hook(port, RetryLimits(timeout_s=60, places=5, close_s=0.05))
        webhook.send({"frame": 0})
        connection, _ = silent.accept()  # it is under way and will never be answered
        with connection:
            for number in range(1, 100):
                webhook.send({"frame": number})
            webhook.close()
        assert (webhook.delivered, webhook.lost) == (0, 100)
        assert "100 alerts could not be delivered" in caplog.text


def test_the_oldest_give_way_to_the_newest(receive: Callable[..., Receiver]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        webhook = hook(silent.getsockname()[1], RetryLimits(timeout_s=30, places=3, close_s=10))
        webhook.send({"frame": 0})
        connection, _ = silent.accept()
        for number in range(1, 10):
            webhook.send({"frame": number})
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        taken = []
        for _ in range(3):
            again, _ = silent.accept()
            with again:
                data = b""
                while b"}" not in data:
                    data += again.recv(65536)
                taken.append(json.loads(data.partition(b"\r\n\r\n")[2])["frame"])
                again.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        webhook.close()
    assert taken == [7, 8, 9]
    assert (webhook.delivered, webhook.lost) == (4, 6)


def test_the_signature_is_that_of_the_body(receive: Callable[..., Receiver]) -> None:
    receiver = receive(200)
    webhook = hook(receiver.port, secret="s3cret")
    webhook.send({"frame": 1})
    headers, body, _ = receiver.requests.get(timeout=20)
    webhook.close()
    given = {name.lower(): value for name, value in headers.items()}["x-edgeseg-signature"]
    expected = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert given == f"sha256={expected}"
    assert given != "sha256=" + hmac.new(b"other", body, hashlib.sha256).hexdigest()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
@pytest.mark.parametrize("trusted", [False, True])
def test_certificates_are_verified(
    trusted: bool,
    receive: Callable[..., Receiver],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    command = ["openssl", "req", "-x509", "-days", "2", *made, *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    receiver = receive(200, context=context)
    webhook = Webhook(f"https://localhost:{receiver.port}/a", patience=QUICK)
    webhook.open()
    webhook.send({"frame": 1})
    webhook.close()
    assert (webhook.delivered, webhook.lost) == ((1, 0) if trusted else (0, 1))
    assert ("its certificate cannot be verified" in caplog.text) is not trusted


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://host/a", "host/hunter2", "http://", "http://user:hunter2@/a", "http://host:0/a"),
        *("http://host:port/hunter2", "http://user:hun/ter2@host/a", "http://host/hunter2 a"),
        *("http://[::1/hunter2", "http://host/hunter2\r\nX: y", "https://host/hünter2"),
    ],
)
def test_what_is_no_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        Webhook(url)
    assert "hunter2" not in refused.value.message
    assert "ter2" not in refused.value.message
    assert refused.value.hint
