"""Copy video from standard input to a media server: the program of a process of its own.

FFmpeg may wait long for a server, and PyAV lets no other thread of its process run while it
connects or ends. So this process does both, and a timer of the system ends it if it waits too
long. It needs nothing but PyAV, whose folder is its argument.

The first line of standard input is a JSON object: ``url``, ``form`` (FFmpeg's name of the muxer),
``options`` of the muxer, and ``timeout_s``. What follows is video in NUT. When the server has
accepted the stream, ``ok`` is written to standard output, and on failure the name of the error.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from typing import Any

_SEND_BUFFER = 128 * 1024
"""Bytes that wait in the system for a slow network."""


def main() -> None:
    """Copy until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the stream ends first
    request = json.loads(_line())
    try:
        _copy(request)
    except Exception as error:  # its text may hold the URL
        os.write(1, type(error).__name__.encode())
        sys.exit(1)


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1) or b"\n"
    return line


def _copy(request: dict[str, Any]) -> None:
    sys.path.append(sys.argv[1])
    import av

    given: Any = av.open(
        "pipe:0", format="nut", options={"analyzeduration": "0", "probesize": "32"}
    )
    sink: Any = av.open(
        request["url"], "w", format=request["form"], container_options=request["options"]
    )
    video = given.streams.video[0]
    copied = sink.add_stream_from_template(video, opaque=True)  # no encoder
    _within(request["timeout_s"], sink.start_encoding)
    _limit_sockets(request["timeout_s"])
    os.write(1, b"ok\n")
    for packet in given.demux(video):
        if packet.size:
            packet.stream = copied
            _within(request["timeout_s"], sink.mux_one, packet)
    _within(1.0, sink.close)


def _limit_sockets(timeout_s: float) -> None:
    """Let connections break if the other side acknowledges nothing, and hold little video back."""
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            connection = socket.socket(fileno=number)
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
                milliseconds = round(timeout_s * 1000)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            finally:
                connection.detach()


def _within(seconds: float, what: Any, *arguments: Any) -> None:
    """Call a function; if it takes longer, SIGALRM ends the process, whatever it waits for."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    what(*arguments)
    signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
