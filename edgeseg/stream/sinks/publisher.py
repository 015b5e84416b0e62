"""Publish overlays live: to a media server, or as an HLS playlist."""

from __future__ import annotations

import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edgeseg.artifacts.documents import printable
from edgeseg.errors import EdgesegError, OutputError, RuntimeMissing, UsageError
from edgeseg.sources.deadline import call_in_time
from edgeseg.sources.pyav import have_pyav
from edgeseg.sources.relay import Relay, connect
from edgeseg.sources.server import Server, Trust
from edgeseg.sources.spec import SourceSpec
from edgeseg.stream.result import StreamResult, moment
from edgeseg.stream.sinks import remux
from edgeseg.stream.sinks.base import Sink, SourceStatus
from edgeseg.stream.sinks.destination import Destination, parse_destination
from edgeseg.stream.sinks.encoded import EncodedWriter, Muxer, find_encoder, fitted
from edgeseg.stream.sinks.playlist import Playlist

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5.0
"""Of connecting, and of the server for taking a frame."""

_CLOSE_S = 1.0
"""Of a server for taking the end."""

_NUT = Muxer("nut", {"flush_packets": "1"})


class VideoPublisher(Sink):
    """The overlays of one source as a live H.264 stream, without B frames.

    A frame from which players can start comes every second, and each frame has its own time: the
    presentation time of a file's, the capture time of a camera's. Frames that differ in size from
    the first are scaled to its size. When the server or the disk fails, a new session is begun
    later.

    Encoding takes time and servers make wait, so pass it to
    :class:`~edgeseg.stream.Background`, with ``may_skip`` for a server.

    Args:
        destination: ``rtsp[s]://…``, ``rtmp://…``, ``srt://…`` or the path of an ``.m3u8`` file.
        ca: PEM file with certificates to trust in addition to the system's, for ``rtsps://``.
        overwrite: Replace a playlist that no stream has written.

    Raises:
        UsageError: The destination has none of these forms, or ``ca`` does not exist.
    """

    retry = "later"
    shows_overlay = True
    close_s = _CLOSE_S

    def __init__(
        self, destination: str | Destination, *, ca: Path | None = None, overwrite: bool = False
    ) -> None:
        if not isinstance(destination, Destination):
            destination = parse_destination(destination)
        self._destination = destination
        self._server = None if destination.playlist else _MediaServer(destination, Trust(ca))
        self._overwrite = overwrite
        self._source: SourceStatus | None = None
        self._playlist: Playlist | None = None
        self._link: _Link | None = None
        self._writer: EncodedWriter | None = None
        self._size = (0, 0)
        self._began = 0.0

    def __str__(self) -> str:
        return f"the published video {self._destination}"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Look whether the server can be reached, or make the folder of the playlist.

        Raises:
            UsageError: There are several sources, or the playlist would replace another file.
            RuntimeMissing: PyAV, an encoder for H.264 or a protocol is missing.
            OutputError: The server cannot be reached, or the disk is full or gone.
        """
        if len(sources) != 1:
            raise UsageError(f"{self}: one source is published, not {len(sources)}")
        first = self._source is None
        if first:
            self._check()
        self._source = sources[0]
        if self._destination.playlist is not None:
            self._playlist = Playlist(
                self._destination.playlist, overwrite=self._overwrite or not first
            )
        elif self._server is not None and not (first and self.context.patient):
            self._server.reach()

    def write(self, result: StreamResult) -> None:
        """Publish a frame; raises OutputError or OSError if the server or the disk fails."""
        assert self._source is not None
        picture = result.overlay()
        at = moment(self._source, result)
        if self._writer is None:
            self._size = (picture.shape[1], picture.shape[0])
            self._began = at
            self._writer = self._begin()
        written = self._writer.write(fitted(picture, self._size), at - self._began)
        if self._link is not None:
            self._link.check()
        if not written:
            raise OSError("cannot write on (is the disk full?)")

    def idle(self) -> None:
        """Raise OutputError once the session is over."""
        if self._link is not None:
            self._link.check()

    def close(self) -> None:
        """End the session, or complete the playlist."""
        writer, link, playlist = self._writer, self._link, self._playlist
        self._writer = self._link = self._playlist = None
        try:
            if writer is not None:
                writer.release()
        finally:
            if link is not None:
                link.close()
            if playlist is not None:
                playlist.close()

    def _check(self) -> None:
        if not have_pyav() or find_encoder("h264") is None:
            raise RuntimeMissing(
                f"{self}: H.264 needs PyAV, which is not installed or has no encoder that works",
                hint="pip install 'edgeseg[av]'",
            )
        if self._destination.scheme == "srt" and not _has_srt():
            raise RuntimeMissing(
                f"{self}: the FFmpeg of the installed PyAV has no SRT",
                hint="publish to rtsp:// or rtmp://, or build PyAV against an FFmpeg with libsrt: "
                "pip install --no-binary av av",
            )

    def _begin(self) -> EncodedWriter:
        """Begin a session with the server, or a playlist."""
        assert self._source is not None
        encoder = find_encoder("h264", self._size)
        if encoder is None:
            raise OSError(f"no encoder takes {self._size[0]}x{self._size[1]} pixels")
        fps = self._source.fps or 25.0
        if self._playlist is not None:
            playlist = self._playlist
            return EncodedWriter(playlist.url, self._size, fps, encoder, playlist.muxer)
        assert self._server is not None
        self._link = _Link(self._server)
        return EncodedWriter(self._link, self._size, fps, encoder, _NUT)


class _MediaServer:
    """A media server, and how to explain what it does."""

    def __init__(self, destination: Destination, trust: Trust) -> None:
        self.destination = destination
        self.spec = SourceSpec("url", destination.target, destination.label, True, trust=trust)
        self._context = trust.context() if destination.scheme == "rtsps" else None

    def reach(self) -> None:
        """Connect and disconnect; raises OutputError. SRT has no connection to try."""
        if self.destination.scheme == "srt":
            return
        deadline = time.monotonic() + _TIMEOUT_S
        server = Server.of(self.spec.target)
        try:
            call_in_time(
                self.spec, lambda: connect(server, self._context, deadline), deadline
            ).close()
        except OSError as error:
            raise self.refusal(error) from None

    def relay(self) -> Relay | None:
        """Return a relay that speaks TLS to the server; None if it has none. Raises OutputError."""
        if self._context is None:
            return None
        try:
            relay = Relay(self.spec, time.monotonic() + _TIMEOUT_S, publishing=True)
        except OSError as error:
            raise self.refusal(error) from None
        relay.opened()  # the process that publishes has time-outs of its own
        return relay

    def refusal(self, error: OSError | str) -> OutputError:
        """The error that says why there is no session: an exception, or the name of PyAV's."""
        hint = "check that the server runs, its port and path, and that it takes streams there"
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted: {printable(error.verify_message, 200)}"
            hint = "name the authority that signed it, or the certificate itself: --publish-ca FILE"
        elif isinstance(error, TimeoutError):
            why = "it did not answer in time"
        elif isinstance(error, OSError):
            why = (error.strerror or type(error).__name__).lower()
        elif error in ("HTTPUnauthorizedError", "HTTPForbiddenError"):
            why = "it refuses the user and password, or a stream without them"
            hint = "write USER:PASSWORD@ before the host, in EDGESEG_PUBLISH_URL"
        else:
            why = f"it ends or refuses the session ({error})"
        return OutputError(f"{self.destination.label}: {why}", hint=hint)


class _Link:
    """A process that copies what is written here to a server, and may be ended at any time.

    Raises:
        OutputError: There is no process, or no TLS.
    """

    def __init__(self, server: _MediaServer) -> None:
        import av

        self._server = server
        self._relay = server.relay()
        self._accepted = self._broken = False
        command = [sys.executable, "-IS", remux.__file__, str(Path(av.__file__).parents[1])]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        except OSError as error:
            self._close_relay()
            raise server.refusal(error) from None
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        request = {
            "url": self._relay.url if self._relay else server.destination.target,
            "form": server.destination.muxer.form,
            "options": server.destination.muxer.options,
            "timeout_s": _TIMEOUT_S,
        }
        self.write(json.dumps(request).encode() + b"\n")

    def write(self, data: bytes) -> int:
        """Write all of ``data``; without effect once the process has ended."""
        left = memoryview(data)
        try:
            while left and self._pipe >= 0:
                left = left[os.write(self._pipe, left) :]
        except BrokenPipeError:
            self._broken = True
        return len(data)

    def check(self) -> None:
        """Wait until the server has accepted the session; raises OutputError once it is over."""
        assert self._process.stdout is not None
        if not self._accepted:
            answer = self._process.stdout.readline().decode("ascii", "replace")
            self._accepted = answer == "ok\n"
            if not self._accepted:
                raise self._over(answer)
        elif self._broken or self._process.poll() is not None:
            raise self._over(self._process.stdout.read().decode("ascii", "replace"))

    def close(self) -> None:
        """Let the process end the session, but not for long."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipe = -1
        self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._close_relay()

    def _over(self, answer: str) -> EdgesegError:
        """The error that says why the process has ended, or will."""
        self._process.wait()
        if self._process.returncode == -signal.SIGALRM:
            return self._server.refusal(TimeoutError())
        return self._server.refusal(printable(answer or "it went away", 60))

    def _close_relay(self) -> None:
        if self._relay is not None:
            self._relay.close()


def _has_srt() -> bool:
    """Whether PyAV's FFmpeg knows the protocol; it reports that before it sends anything."""
    import av

    try:
        av.open("srt://127.0.0.1:1?connect_timeout=1", timeout=0.1).close()
    except av.FFmpegError as error:
        return type(error).__name__ != "ProtocolNotFoundError"
    return True
