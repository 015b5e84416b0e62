"""A network camera on loopback that can be switched off and on, for tests of those who look."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
from typing_extensions import Self


class MjpegCamera:
    """An MJPEG camera over HTTP, 64×48 at 25 fps; the shade of frame n is n modulo 250.

    Attributes:
        port: Stays the same when it is switched off and on.
    """

    def __init__(self) -> None:
        self.port = 0
        self._sent = 0
        self._server: ThreadingHTTPServer | None = None
        self._off = threading.Event()

    @property
    def url(self) -> str:
        return f"http://user:hunter2-QXZ@127.0.0.1:{self.port}/mjpeg"

    def __enter__(self) -> Self:
        self.switch_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.switch_off()

    def switch_on(self) -> None:
        camera = self
        off = self._off = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera._serve(self, off)

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = False  # so that closing waits for the connections

            def handle_error(self, *_: object) -> None: ...  # clients may go as they like

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,)).start()

    def switch_off(self) -> None:
        """Cut all connections and close the port."""
        if self._server is not None:
            self._off.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _serve(self, request: BaseHTTPRequestHandler, off: threading.Event) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        while not off.wait(0.04):
            picture = np.full((48, 64, 3), self._sent % 250, np.uint8)
            self._sent += 1
            data = cv2.imencode(".jpg", picture)[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            request.wfile.write(head.encode() + data + b"\r\n")
