"""A network camera on loopback that can be switched off and on, frozen and locked."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
from typing_extensions import Self

USER, PASSWORD = "user", "hunter2-QXZ"


class MjpegCamera:
    """An MJPEG camera over HTTP; the shade of frame n is n modulo 250.

    Attributes:
        port: Stays the same when it is switched off and on.
        frozen: While set, connections stay open and silent.
        sent: Frames made so far.
        size: (width, height) of the frames from now on.
    """

    def __init__(self, fps: float = 25.0, password: str | None = None) -> None:
        self.frozen = threading.Event()
        self.sent = 0
        self.size = (64, 48)
        self.port = 0
        self._interval = 1 / fps
        self._password = password
        self._server: ThreadingHTTPServer | None = None
        self._switching = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}/mjpeg"

    def __enter__(self) -> Self:
        self.switch_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.switch_off()

    def switch_on(self) -> None:
        """Open the port; waits for a ``switch_off`` in another thread."""
        with self._switching:
            self._start()

    def _start(self) -> None:
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
        with self._switching:
            if self._server is not None:
                self._off.set()
                self._server.shutdown()
                self._server.server_close()
                self._server = None

    def _serve(self, request: BaseHTTPRequestHandler, off: threading.Event) -> None:
        expected = "Basic " + base64.b64encode(f"{USER}:{self._password}".encode()).decode()
        if self._password and request.headers.get("Authorization") != expected:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="camera"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        while not off.wait(self._interval):
            if self.frozen.is_set():
                continue
            picture = np.full((*self.size[::-1], 3), self.sent % 250, np.uint8)
            self.sent += 1
            data = cv2.imencode(".jpg", picture)[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            request.wfile.write(head.encode() + data + b"\r\n")
