"""The view as it serves: real sockets, clients that behave and clients that do not."""

import contextlib
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import StillSource

from edgeseg.cli.streaming import _raise_descriptors
from edgeseg.errors import OutputError, UsageError
from edgeseg.stream.result import StreamResult
from edgeseg.stream.web import WebLimits, WebView
from edgeseg.stream.web.server import _Connection, last_in_line, owner
from edgeseg.stream.web.view import SPARE

Make = Callable[..., StreamResult]
Open = Callable[..., WebView]


def port_of(view: WebView) -> int:
    return int(httpx.URL(view.url).port or 80)


def connect(view: WebView, text: bytes = b"", receive: int | None = None) -> socket.socket:
    """A bare connection that has sent ``text``."""
    client = socket.socket()
    if receive is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    client.settimeout(20)
    try:
        client.connect(("127.0.0.1", port_of(view)))
        client.sendall(text)
    except OSError:
        client.close()
        raise
    return client


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def read_to_the_end(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_it_serves_what_it_says(open_view: Open, result: Make) -> None:
    view = open_view()
    assert view.url.startswith("http://127.0.0.1:")
    with httpx.Client(base_url=view.url) as client:
        assert client.get("/").text.startswith("<!doctype html>")
        for path, kind in (("/app.js", "javascript"), ("/style.css", "css"), ("/icon.svg", "svg")):
            assert kind in client.get(path).headers["content-type"]
        assert client.get("/frames?after=0:0").status_code == 204
        view.write(result(7))
        assert client.get("/frames?after=0:0,1:0").content[4:].startswith(b'{"camera": 0')
        head = client.head("/frames?after=0:0")
        assert (head.status_code, head.content) == (200, b"")
        assert client.get("/status").json()["sources"][0]["silent_s"] is not None
        assert set(client.get("/history?after=-1").json()) == {"first", "last", "parts", "sources"}
        assert client.get("/healthz").json() == {"ok": True}
        assert client.get("/nothing").status_code == 404
        assert client.get("/../view.py").status_code == 404


@pytest.mark.parametrize(
    "after", ["", "0", "2:0", "0:0,", "0:-1", "a:1", "0:0;1:0", "0:" + "9" * 30]
)
def test_frames_of_nothing(open_view: Open, after: str) -> None:
    answer = httpx.get(f"{open_view().url}frames", params={"after": after})
    assert answer.status_code == 400


def test_health_is_that_of_the_sources(open_view: Open, sources: list[StillSource]) -> None:
    view = open_view()
    sources[0].state = sources[1].state = "reconnecting"
    assert httpx.get(f"{view.url}healthz").status_code == 503
    sources[1].state = "ok"
    assert httpx.get(f"{view.url}healthz").status_code == 200


def test_others_need_the_token_that_is_made(
    open_view: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "edgeseg")
    view = open_view("0.0.0.0:0")
    here = f"http://127.0.0.1:{port_of(view)}"
    assert httpx.get(f"{here}/status").status_code == 401
    token = httpx.URL(view.url).params["token"]
    assert len(token) == 32
    assert httpx.get(f"{here}/status", headers={"Authorization": f"Bearer {token}"}).is_success
    assert caplog.text.count(token) == 1, "said once, and in no access log"
    assert WebView(view._classes, "0.0.0.0:0")._token != token


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6(open_view: Open) -> None:
    view = open_view("[::1]:0")
    assert httpx.get(f"{view.url}healthz").is_success
    everywhere = open_view("[::]:0")
    for host in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{host}:{port_of(everywhere)}/healthz").is_success


@pytest.mark.parametrize("address", ["127.0.0.1:0", "0.0.0.0:0"])
def test_a_token_that_the_user_gave_is_not_told(
    open_view: Open, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    caplog.set_level(logging.DEBUG)
    view = open_view(address, token="sixteen-letters-x")
    assert "web view: http://" in caplog.text
    assert "sixteen" not in caplog.text + view.url + repr(vars(view)["_query"]) + str(view)


def test_a_token_may_be_asked_for_on_loopback_too(open_view: Open) -> None:
    view = open_view(token="sixteen-letters-x")
    assert httpx.get(view.url.partition("?")[0] + "status").status_code == 401


@pytest.mark.parametrize("token", ["", "short", "with spaces in it ok", "ümlaut-ümlaut-ümlaut"])
def test_tokens_that_are_none(classes: Any, token: str) -> None:
    with pytest.raises(UsageError, match="16"):
        WebView(classes, token=token)


def test_a_port_in_use(open_view: Open, classes: Any, sources: list[StillSource]) -> None:
    view = open_view()
    with pytest.raises(OutputError, match="in use"):
        WebView(classes, str(port_of(view))).open(sources)


def test_requests_beyond_the_limit_are_told_so(open_view: Open) -> None:
    view = open_view(limits=WebLimits(requests=2))
    waiting = [connect(view, request("/frames?after=0:0")) for _ in range(2)]
    for _ in range(1000):
        with connect(view, request("/status")) as beyond:
            if b"503 Service Unavailable" in beyond.recv(4096):
                break
    else:
        raise AssertionError("a third request was always answered")
    assert httpx.get(f"{view.url}healthz").status_code == 200
    for client in waiting:
        assert b" 204 " in client.recv(4096)
        client.close()
    assert httpx.get(f"{view.url}status").status_code == 200


def sockets_of_this_process() -> int:
    """Descriptors of connections, those of servers here and those of clients here."""
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the folder itself
            count += str(each.readlink()).startswith("socket:")
    return count


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors as Linux does")
def test_idle_strangers_keep_neither_probes_nor_viewers_out(
    open_view: Open, result: Make, caplog: pytest.LogCaptureFixture
) -> None:
    view = open_view("0.0.0.0:0")
    base, token = f"http://127.0.0.1:{port_of(view)}", httpx.URL(view.url).params["token"]
    shown = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=base, headers=shown) as viewer, contextlib.ExitStack() as stack:
        view.write(result(0))
        assert viewer.get("/frames?after=0:0").status_code == 200
        before = sockets_of_this_process()
        threads = set(threading.enumerate())
        strangers = [stack.enter_context(connect(view)) for _ in range(200)]
        assert httpx.get(f"{base}/healthz").status_code == 200
        for index in range(1, 4):
            view.write(result(index))
            assert viewer.get(f"/frames?after=0:{index}").status_code == 200
        assert sockets_of_this_process() - before - len(strangers) <= WebLimits().requests + SPARE
        assert set(threading.enumerate()) <= threads
    turned_away = [line for line in caplog.messages if "closed one of more than" in line]
    assert len(turned_away) == 1


class Held:
    """What is asked of a connection where there are too many."""

    def __init__(
        self, name: str, address: str, used_at: float, *, asked: bool = False, busy: bool = False
    ) -> None:
        self.name, self.address, self.used_at, self.busy = name, address, used_at, busy
        self.cycle = object() if asked else None


@pytest.mark.parametrize(
    ("held", "goes"),
    [
        ([Held("old", "a", 1), Held("new", "a", 2)], "old"),
        ([Held("lone", "a", 1), Held("one", "b", 2), Held("two", "b", 3)], "one"),
        ([Held("viewer", "a", 1, asked=True), Held("stranger", "b", 2)], "stranger"),
        ([Held("busy", "a", 1, asked=True, busy=True), Held("was", "b", 2, asked=True)], "was"),
        ([Held(str(i), "ab"[i], i, asked=True, busy=True) for i in range(2)], "0"),
    ],
)
def test_who_goes_where_there_are_too_many(held: Any, goes: str) -> None:
    assert last_in_line(held).name == goes  # type: ignore[attr-defined]


def test_a_stream_may_open_as_many_files_as_the_system_lets_it() -> None:
    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, was[1]))
        _raise_descriptors()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == was[1]
        assert soft == (65536 if hard == resource.RLIM_INFINITY else min(65536, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, was)


def test_descriptors_are_left_to_files(open_view: Open, caplog: pytest.LogCaptureFixture) -> None:
    view = open_view()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest := os.dup(0))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * (lowest + 5), hard))
        held = [connect(view) for _ in range(8)]  # both ends are this process's
        read_to_the_end(held[0])  # ends, or the socket's time-out raises
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for client in held:
        client.close()
    assert "leave descriptors to files" in caplog.text
    assert httpx.get(f"{view.url}healthz").is_success


def test_addresses_that_one_client_has() -> None:
    assert owner("2001:db8::1") == owner("2001:db8::ffff:2") != owner("2001:db8:0:1::1")
    assert owner("::ffff:192.0.2.1") == owner("192.0.2.1") != owner("192.0.2.2")


def test_a_drip_of_header_bytes_is_cut_off(open_view: Open) -> None:
    view = open_view(limits=WebLimits(idle_s=0.3))
    with connect(view, b"GET / HTTP/1.1\r\nX: ") as client:
        client.settimeout(0.02)
        for _ in range(500):
            try:
                client.sendall(b"x")
                assert client.recv(100) == b""
            except TimeoutError:
                continue  # it is still there
            except ConnectionError:
                pass
            return
    raise AssertionError("ten seconds were not enough")


@pytest.mark.parametrize("said", [b"", b"GET / HT", request("/healthz") + b"GET /st"])
def test_a_client_that_says_nothing_more_is_cut_off(open_view: Open, said: bytes) -> None:
    view = open_view(limits=WebLimits(idle_s=0.2))
    with connect(view, said) as client:
        read_to_the_end(client)  # ends, or the socket's time-out raises


def test_a_request_without_end_is_refused(open_view: Open) -> None:
    with connect(open_view(), b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000) as client:
        assert b" 400 " in read_to_the_end(client).split(b"\r\n")[0]


def noise(side: int) -> NDArray[np.uint8]:
    """A picture that JPEG cannot make small."""
    return np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)


def test_a_client_that_never_reads_is_cut_off_and_costs_the_others_nothing(
    open_view: Open, result: Make
) -> None:
    view = open_view(limits=WebLimits(unread_s=0.5))
    view.write(result(0, frame=noise(1280)))  # about 2 MB of JPEG: more than the buffers hold
    lazy = connect(view, request("/frames?after=0:0") * 20, receive=4096)
    with httpx.Client(base_url=view.url) as client:
        for index in range(1, 6):
            view.write(result(index, frame=noise(320)))
            answer = client.get(f"/frames?after=0:{index}")
            assert f'"frame": {index},'.encode() in answer.content[:200]
        connections = view._server._server.server_state.connections  # type: ignore[union-attr]
        while len(connections) > 1:  # until the kernel cuts the lazy one off
            client.get("/healthz")
    lazy.close()


def test_a_slow_viewer_gets_all_of_its_picture(open_view: Open, result: Make) -> None:
    view = open_view(limits=WebLimits(idle_s=0.1))
    view.write(result(0, frame=noise(1280)))  # a megabyte of JPEG: more than the buffers hold
    with connect(view, request("/frames?after=0:0"), receive=4096) as slow:
        text = b""
        while b"\r\n\r\n" not in text:
            text += slow.recv(512)
        connections = view._server._server.server_state.connections  # type: ignore[union-attr]
        (served,) = connections
        assert isinstance(served, _Connection)
        answered_at = served.used_at
        for _ in range(3):  # times that it is looked at, idle_s after the other
            timer = served._patience
            while served._patience is timer and served in connections:
                httpx.get(f"{view.url}healthz")
        head, _, body = text.partition(b"\r\n\r\n")
        (length,) = re.findall(rb"content-length: (\d+)", head)
        while len(body) < int(length) and (part := slow.recv(65536)):
            body += part
        assert len(body) == int(length)
        while served.used_at == answered_at and served in connections:
            httpx.get(f"{view.url}healthz")
        assert served.used_at > answered_at, "its time begins when it has taken the picture"


def test_it_ends_though_clients_hang(open_view: Open, result: Make) -> None:
    view = open_view()
    view.write(result(0, frame=noise(1280)))
    hanging = [
        connect(view),
        connect(view, b"GET /stat"),
        connect(view, request("/frames?after=1:0")),
        connect(view, request("/frames?after=0:0") * 5, receive=4096),
    ]
    assert httpx.get(f"{view.url}healthz").is_success
    thread = view._server._thread  # type: ignore[union-attr]
    view.close()
    assert not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        connect(view)
    view.close()
    for client in hanging:
        client.close()


def test_a_server_that_ended_by_itself_ends_the_sink(open_view: Open, result: Make) -> None:
    view = open_view()
    view.write(result(0))
    server = view._server
    assert server is not None
    server._server.should_exit = True
    server._thread.join(10)
    with pytest.raises(RuntimeError, match="server ended"):
        view.write(result(1))


def test_a_server_that_does_not_start_leaves_its_port(
    open_view: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError("planted")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr("edgeseg.stream.web.server._Server.serve", fails)
    with pytest.raises(RuntimeError, match="planted") as caught:
        open_view(f"127.0.0.1:{port}")
    monkeypatch.undo()
    assert open_view(f"127.0.0.1:{port}").url
    assert caught.tb is not None  # what it holds was not closed by the collector


def test_signals_stay_the_stream_s(open_view: Open) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    open_view()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


SCRIPT = """
import numpy as np
from pathlib import Path
from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.engines.base import Engine
from edgeseg.stream import Stream, run
from edgeseg.stream.web import WebView

class Grey(Engine):
    runtime, path = "test", Path("grey")
    card = ModelCard(
        name="grey", arch="threshold",
        classes=ClassMap.model_validate({"names": ("background", "bright")}),
        input=InputSpec(height=48, width=64, color="bgr", mean=(0, 0, 0), std=(1, 1, 1)),
    )
    def _infer(self, batch):
        return (batch.mean(axis=1) > 0.5).astype(np.uint8)
    def close(self): ...

class Loud(WebView):
    def open(self, sources):
        super().open(sources)
        print(self.url, flush=True)

with Grey() as engine:
    report = run(Stream("test:64x48@25", engine), [Loud(engine.card.classes, "0")])
print("clean", report.frames > 0)
"""


def test_interrupting_a_stream_with_viewers_is_clean() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        viewer = threading.Thread(target=lambda: _watch(url))
        viewer.start()
        while httpx.get(f"{url}frames?after=0:0").status_code != 200:
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        viewer.join()
    assert (process.returncode, out, err) == (0, "clean True\n", "")


def _watch(url: str) -> None:
    """Ask for pictures until nobody answers."""
    try:
        with httpx.Client(base_url=url) as client:
            while True:
                client.get("/frames?after=0:0")
    except httpx.TransportError:
        return
