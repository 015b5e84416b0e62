"""An MJPEG camera that hangs up after so many frames, as fast as it is read.

``python hangup_server.py FRAMES`` prints its port and ends when its standard input does. In a
process of its own, so that its memory is not the stream's.
"""

import socket
import sys
import threading

import cv2
import numpy as np

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n"
    b"Connection: close\r\n\r\n"
)


def serve(connection: socket.socket, frames: int, part: bytes) -> None:
    """One client."""
    with connection:
        try:
            connection.recv(4096)
            connection.sendall(HEAD)
            for _ in range(frames):
                connection.sendall(part)
        except OSError:
            return


def accept_all(listening: socket.socket, frames: int, part: bytes) -> None:
    """A thread a client."""
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=serve, args=(connection, frames, part), daemon=True).start()


def main() -> None:
    """Serve until standard input ends."""
    data = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
    part += data + b"\r\n"
    listening = socket.create_server(("127.0.0.1", 0))
    arguments = (listening, int(sys.argv[1]), part)
    threading.Thread(target=accept_all, args=arguments, daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    sys.stdin.read()


main()
