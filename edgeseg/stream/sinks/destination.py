"""Where video is published: a media server by its URL, or an HLS playlist on disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeseg.artifacts.documents import printable
from edgeseg.errors import UsageError
from edgeseg.machine import expanded
from edgeseg.sources.masking import HIDDEN
from edgeseg.sources.server import split_url
from edgeseg.sources.spec import split_secrets
from edgeseg.stream.sinks.encoded import Muxer

_MUXERS: Mapping[str, Muxer] = {
    "rtsp": Muxer("rtsp", {"rtsp_transport": "tcp"}),
    "rtsps": Muxer("rtsp", {"rtsp_transport": "tcp"}),
    "rtmp": Muxer("flv", {"flvflags": "no_duration_filesize", "flush_packets": "1"}),
    "srt": Muxer("mpegts", {"flush_packets": "1"}),
}
_HINT = "write rtsp://HOST:PORT/PATH, rtsps://…, rtmp://HOST/APP/KEY, srt://HOST:PORT or FILE.m3u8"


@dataclass(frozen=True)
class Destination:
    """Where the video of one source is published; ``str`` and ``repr`` show no secret.

    Attributes:
        target: URL with its credentials; ``""`` for a playlist.
        label: As shown to people.
        playlist: Path of the playlist; None for a server.
    """

    target: str = field(repr=False)
    label: str
    playlist: Path | None = None

    def __str__(self) -> str:
        return self.label

    @property
    def scheme(self) -> str:
        """Scheme of the URL, in lower case."""
        return self.target.partition("://")[0]

    @property
    def muxer(self) -> Muxer:
        """The muxer that the server takes."""
        return _MUXERS[self.scheme]

    def numbered(self, number: int) -> Destination:
        """Return the destination of one of several sources: its path ends in ``-NUMBER``.

        Raises:
            UsageError: It is a server for SRT, whose streams have no path.
        """
        if self.playlist is not None:
            path = self.playlist.with_stem(f"{self.playlist.stem}-{number}")
            return replace(self, label=printable(str(path)), playlist=path)
        if self.scheme == "srt":
            raise UsageError(
                f"{self.label}: several sources have a path each, which SRT lacks",
                hint="publish over RTSP, or start a stream for each source",
            )
        head, mark, query = self.target.partition("?")
        return parse_destination(f"{head}-{number}{mark}{query}")


def parse_destination(text: str) -> Destination:
    """Parse ``rtsp[s]://…``, ``rtmp://…``, ``srt://…`` or the path of an ``.m3u8`` file.

    Of a URL for RTMP, only its first level of path is shown: what follows is the key of a stream.
    Of one for SRT no query is shown: ``streamid`` may contain a password.

    Raises:
        UsageError: It is none of these. The message contains no password.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        if Path(text).suffix.lower() != ".m3u8":
            raise UsageError("no URL of a media server and no .m3u8 file", hint=_HINT)
        return Destination("", printable(text), expanded(text))
    if scheme.lower() not in _MUXERS:
        shown = scheme.lower() if re.fullmatch(r"[A-Za-z]{1,10}", scheme) else HIDDEN
        raise UsageError(f"nothing is published to {shown}:// URLs", hint=_HINT)
    target, label = split_secrets(text)
    path = split_url(target)[2]
    if scheme.lower() == "rtmp":
        if not re.fullmatch(r"/[^/?]+/[^?]+.*", path):
            raise UsageError("a URL for RTMP has an application and a key", hint=_HINT)
        label = f"{label[: len(label) - len(split_url(label)[2])]}/{path.split('/')[1]}/{HIDDEN}"
    elif scheme.lower() == "srt":
        label = label.partition("?")[0]
    return Destination(target, label)


def has_secret(text: str) -> bool:
    """Whether something of a URL is masked in its label."""
    destination = parse_destination(text)
    return destination.playlist is None and destination.label != destination.target


def anchored(text: str, folder: Path) -> str:
    """Resolve the relative path of a playlist against ``folder``; URLs are unchanged."""
    playlist = parse_destination(text).playlist
    return text if playlist is None else str(folder / playlist)
