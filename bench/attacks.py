"""What strangers' connections cost a stream: its rate, files, log, threads and probes meanwhile.

``python -m bench.attacks ENGINE OUT`` starts ``edgeseg stream`` on loopback with the page, the
metrics, a recording and masks, lets each attack loose on each of the two servers, and writes
OUT/attacks.json and OUT/attacks.md. ``--checkout`` measures another checkout of edgeseg.
"""

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

FILES = 1024
"""Descriptors that the stream may have at its start, as a login shell or a service gives them."""

_HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@dataclass(frozen=True)
class Attack:
    """What each of many connections does.

    Attributes:
        first: Bytes sent when it is made.
        then: Bytes sent again every 20 ms, for ever.
        reads: Whether it takes what it is answered.
    """

    first: bytes = b""
    then: bytes = b""
    reads: bool = True


ATTACKS = {
    "nothing": Attack(),
    "idle": Attack(),
    "a header, a byte at a time": Attack(_HEAD + b"X: ", b"x"),
    "1,000 requests at once, never reading": Attack((_HEAD + b"\r\n") * 1000, reads=False),
    "metrics, never reading": Attack(
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000, reads=False
    ),
    "10,000 requests at once": Attack((_HEAD + b"\r\n") * 10_000),
    "a body without end": Attack(
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1000\r\n" + b"x" * 4096 + b"\r\n",
    ),
    "a header of 1 MB": Attack(_HEAD + b"X: " + b"x" * 1_000_000),
    "an address of 15 kB": Attack(
        b"GET /" + b"x" * 15_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ),
    "another method": Attack(b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "HTTP/2": Attack(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"),
    "TLS": Attack(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x5a" * 509),
    "web sockets": Attack(
        _HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
}


def hold(port: int, attack: Attack, connections: int, burst: int, seconds: float) -> None:
    """Keep so many connections, ``burst`` new ones a round of 20 ms."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    held: list[tuple[socket.socket, bytearray]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        held = [each for each in held if _goes_on(*each, attack)]
        for _ in range(min(burst, connections - len(held))):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            held.append((one, bytearray(attack.first)))
        time.sleep(0.02)


def _goes_on(one: socket.socket, unsent: bytearray, attack: Attack) -> bool:
    """Send and take what can be; False, and closed, where the other end has closed."""
    try:
        if unsent:
            with contextlib.suppress(BlockingIOError):
                del unsent[: one.send(unsent)]
        elif attack.then:
            unsent += attack.then
        if attack.reads and one.recv(65536) == b"":
            one.close()
            return False
    except BlockingIOError:
        pass
    except OSError:
        one.close()
        return False
    return True


@dataclass
class Stream:
    """A stream that runs, and what can be seen of it from outside."""

    process: subprocess.Popen[str]
    folder: Path
    ports: dict[str, int]

    def masks(self) -> int:
        """How many were written."""
        return sum(1 for _ in (self.folder / "masks").glob("**/*.png"))

    def size(self, name: str) -> int:
        """Bytes of a file of its folder."""
        return (self.folder / name).stat().st_size

    def count(self, what: str) -> int:
        """Entries of a folder of ``/proc``: ``fd`` or ``task``."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/{what}").iterdir())

    def connections(self, server: str) -> int:
        """Established ones of a server that it has accepted: those that an inode stands for."""
        port = f":{self.ports[server]:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[1].endswith(port) and row[3] == "01" and row[9] != "0" for row in rows)

    def probe(self, server: str) -> float | None:
        """Seconds until a probe is answered 200; None where it is not, within five seconds."""
        path = "/healthz" if server == "web" else "/metrics"
        began = time.monotonic()
        asked = http.client.HTTPConnection("127.0.0.1", self.ports[server], timeout=5)
        with contextlib.closing(asked), contextlib.suppress(OSError, http.client.HTTPException):
            asked.request("GET", path)
            if asked.getresponse().status == 200:
                return time.monotonic() - began
        return None


@contextlib.contextmanager
def running(engine: Path, folder: Path, checkout: Path) -> Iterator[Stream]:
    """A stream of a test pattern that records and saves masks; it ends as a service does."""
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        web, metrics = (each.getsockname()[1] for each in free)
    command = [
        *(sys.executable, "-m", "edgeseg", "stream", str(engine), "--source", "test:320x240@25"),
        *("--no-window", "--web", f"0.0.0.0:{web}", "--metrics", f"0.0.0.0:{metrics}"),
        *("--record", str(folder / "drive.mkv"), "--save-masks", str(folder / "masks")),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, text=True, cwd=folder,
            env=os.environ | {"PYTHONPATH": str(checkout)},
        )  # fmt: skip
        stream = Stream(process, folder, {"web": web, "metrics": metrics})
        try:
            while stream.probe("web") is None or stream.probe("metrics") is None:
                if process.poll() is not None:
                    raise SystemExit((folder / "log").read_text())
                time.sleep(0.2)
            yield stream
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@dataclass(frozen=True)
class Seen:
    """A stream while it was attacked.

    Attributes:
        attack: Name of the attack.
        server: ``web`` or ``metrics``.
        fps: Masks written a second.
        recorded_kb: Kilobytes by which the recording grew.
        log_bytes: Bytes by which the log grew.
        connections: Most connections that the server held.
        descriptors: Most descriptors that were open.
        threads: Most threads that there were.
        probes: How many probes there were.
        answered: How many of them were answered 200.
        slowest_s: Seconds that the slowest of those took; None without any.
    """

    attack: str
    server: str
    fps: float
    recorded_kb: int
    log_bytes: int
    connections: int
    descriptors: int
    threads: int
    probes: int
    answered: int
    slowest_s: float | None


def watch(
    stream: Stream, server: str, name: str, seconds: float, *, connections: int, burst: int
) -> Seen:
    """Attack one server for so long and look."""
    attacker = multiprocessing.get_context("spawn").Process(
        target=hold, args=(stream.ports[server], ATTACKS[name], connections, burst, seconds)
    )
    attacker.start()
    before = stream.masks(), stream.size("drive.mkv"), stream.size("log")
    began = time.monotonic()
    probes: list[float | None] = []
    most = [0, 0, 0]
    while time.monotonic() < began + seconds:
        now = stream.connections(server), stream.count("fd"), stream.count("task")
        most = [max(pair) for pair in zip(most, now, strict=True)]
        probes.append(stream.probe(server))
        time.sleep(0.2)
    took = time.monotonic() - began
    masks, recorded, log = (
        after - early
        for after, early in zip(
            (stream.masks(), stream.size("drive.mkv"), stream.size("log")), before, strict=True
        )
    )
    attacker.join()
    times = [each for each in probes if each is not None]
    slowest = round(max(times), 3) if times else None
    connections, descriptors, threads = most
    return Seen(
        attack=name,
        server=server,
        fps=round(masks / took, 1),
        recorded_kb=recorded // 1000,
        log_bytes=log,
        connections=connections,
        descriptors=descriptors,
        threads=threads,
        probes=len(probes),
        answered=len(times),
        slowest_s=slowest,
    )


def write(out: Path, rows: list[Seen], about: str) -> None:
    """Both files."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"about": about, "rows": [asdict(row) for row in rows]}
    (out / "attacks.json").write_text(json.dumps(document, indent=2) + "\n")
    lines = [
        *("# Connections of strangers", "", about, ""),
        "| attack | server | masks/s | recorded, kB | log, bytes | connections | descriptors "
        "| threads | probes answered | slowest, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.attack} | {row.server} | {row.fps} | {row.recorded_kb} | {row.log_bytes} "
        f"| {row.connections} | {row.descriptors} | {row.threads} "
        f"| {row.answered} of {row.probes} | {row.slowest_s or '–'} |"
        for row in rows
    ]
    (out / "attacks.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--attack", action="append", choices=list(ATTACKS), help="default: all")
    parser.add_argument("--connections", type=int, default=1200)
    parser.add_argument("--burst", type=int, default=4, help="new connections every 20 ms")
    parser.add_argument("--seconds", type=float, default=25)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1])
    given = parser.parse_args()
    # The stream inherits it; the attacker raises its own.
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    rows = []
    for name in given.attack or ATTACKS:
        for server in ("web", "metrics"):
            many = 0 if name == "nothing" else given.connections
            with (
                tempfile.TemporaryDirectory() as folder,
                running(given.engine.resolve(), Path(folder), given.checkout.resolve()) as stream,
            ):
                rows.append(
                    watch(stream, server, name, given.seconds, connections=many, burst=given.burst)
                )
            print(rows[-1], flush=True)
    about = (
        f"{given.connections} connections from one address, {given.burst} new ones every 20 ms, "
        f"{given.seconds:g} s an attack; a stream of test:320x240@25 that records and saves masks."
    )
    write(given.out, rows, about)


if __name__ == "__main__":
    main()
