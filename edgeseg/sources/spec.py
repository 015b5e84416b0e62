"""Parse the source of a stream from text, and mask its passwords.

=========================== ======================================================
``camera:0``, ``0``         V4L2 camera ``/dev/video0``; ``camera:0:1280x720@30``
``/dev/video0``             the same by path, ``/dev/v4l/by-id/…`` too
``csi:0``                   CSI camera of a Jetson; ``csi:0:1920x1080@30``
``gst:PIPELINE``            GStreamer pipeline, as ``gst-launch-1.0`` takes it
``rtsp://…``, ``rtsps://…`` network camera, RTSP over TCP
``http://…``, ``https://…`` MJPEG camera, or a video file by URL
``drive.mkv``               video file
``frames/``, ``*.png``      pictures, in order of their names
``test:640x480@25``         moving test pattern; ``test:?frames=100`` ends
=========================== ======================================================
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from edgeseg.data.decode import PICTURE_SUFFIXES
from edgeseg.errors import UsageError
from edgeseg.machine import expanded
from edgeseg.options.streaming import MAX_FRAME_PIXELS
from edgeseg.sources.launch import elements, masked
from edgeseg.sources.masking import HIDDEN, masked_url
from edgeseg.sources.packets import PacketTap
from edgeseg.sources.server import Trust

Kind = Literal["camera", "csi", "gst", "url", "file", "pictures", "test", "own"]

VIDEOS = (".mkv", ".mp4", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv")
SCHEMES = ("rtsp", "rtsps", "http", "https")

EXAMPLES = """\
stream something else:
  edgeseg stream --source drive.mkv
  edgeseg stream --source rtsp://user:password@192.168.1.20:554/stream1
  edgeseg stream --source test:640x480@25"""
"""Hint for error messages: sources that work on a machine without a camera."""

_SIZE = r"(?P<width>\d{1,5})x(?P<height>\d{1,5})"
_FPS = r"@(?P<fps>\d{1,4}(?:\.\d{1,3})?)"
_CAMERA = re.compile(rf"(?:(?:camera|csi):)?(?P<index>\d{{1,3}})(?::(?:{_SIZE})?(?:{_FPS})?)?")
_TEST = re.compile(rf"test:(?:{_SIZE})?(?:{_FPS})?(?:\?frames=(?P<frames>\d{{1,9}}))?")

MIN_SIDE = 16
"""Minimum width and height of a camera's frame, in pixels."""


@dataclass(frozen=True)
class SourceLimits:
    """Time-outs and limits of a source; times are in seconds of the monotonic clock.

    Attributes:
        open_s: Time-out for opening the source.
        read_s: Time without a frame after which a live source counts as lost.
        stalled_s: Time without a frame after which a live source is reported as stalled.
        backoff_s: Waits before the first, second, … attempt to reconnect; the last repeats.
        jitter: Random variation of a wait, as a share of it, so that many readers do not
            reconnect at the same moment.
        queued: Maximum number of queued frames when every frame is processed.
    """

    open_s: float = 5.0
    read_s: float = 4.0
    stalled_s: float = 2.0
    backoff_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 5.0)
    jitter: float = 0.2
    queued: int = 4


@dataclass(frozen=True)
class SourceSpec:
    """A parsed source that is not opened yet.

    Attributes:
        kind: Kind of source, which determines how it is opened.
        target: Path, URL or pipeline with its credentials, number of a CSI sensor, or ``""``;
            never shown in the repr, a log or a report.
        label: The source as shown to people, with passwords masked.
        live: True for cameras; the reader reconnects when a live source ends.
        size: Requested (width, height) in pixels; None for the source's default.
        fps: Requested frames per second; None for the source's default.
        frames: Number of frames of a test pattern; None for an endless one.
        limits: Time-outs of the source.
        trust: Certificates to trust for cameras over TLS.
        own: Object that delivers the frames, see :func:`edgeseg.stream.from_frames`.
        max_pixels: Maximum number of pixels per frame.
        decode: Device that decodes, see :func:`edgeseg.sources.decoding.device_for`.
        packets: Receives the compressed packets of a network camera that PyAV reads.
    """

    kind: Kind
    target: str = field(repr=False)
    label: str
    live: bool = False
    size: tuple[int, int] | None = None
    fps: float | None = None
    frames: int | None = None
    limits: SourceLimits = field(default=SourceLimits(), repr=False)
    trust: Trust = field(default=Trust(), repr=False)
    own: Any = field(default=None, repr=False, compare=False)
    max_pixels: int = field(default=MAX_FRAME_PIXELS, repr=False)
    decode: str = field(default="cpu", repr=False)
    packets: PacketTap | None = field(default=None, repr=False, compare=False)

    @property
    def realtime(self) -> bool:
        """Default of ``realtime``: whether old frames are dropped in favour of the newest."""
        return self.live or self.kind == "test"

    def __str__(self) -> str:
        return self.label


def parse_source(source: str | int | Path | SourceSpec) -> SourceSpec:
    """Parse a source given by the user; the module's docstring lists the accepted forms.

    Nothing is opened: a missing file is reported when the stream starts.

    Raises:
        UsageError: The text has none of these forms. The message never contains a password.
    """
    if isinstance(source, SourceSpec):
        return source
    if isinstance(source, Path):
        return _path(str(source))
    return _text(str(source).strip())


def anchored(text: str, folder: Path) -> str:
    """Resolve a relative path in ``text`` against ``folder``; return other sources unchanged.

    Raises:
        UsageError: As :func:`parse_source`.
    """
    spec = _text(text.strip())
    if spec.kind not in ("file", "pictures"):
        return text
    below = folder / spec.target
    if glob.has_magic(spec.target) and not below.exists():  # the folder is not part of the pattern
        below = Path(glob.escape(str(folder))) / spec.target
    return str(below)


def has_secret(text: str) -> bool:
    """Whether a valid source contains a secret that its label masks."""
    return HIDDEN in _text(text.strip()).label


def with_format(
    spec: SourceSpec, size: tuple[int, int] | None = None, fps: float | None = None
) -> SourceSpec:
    """Return ``spec`` with a requested frame size and rate, for cameras and the test pattern.

    Args:
        spec: Any source; returned unchanged if ``size`` and ``fps`` are None.
        size: Frame size (width, height) in pixels.
        fps: Frames per second.

    Raises:
        UsageError: The source does not support the request, already specifies other values, or
            the values are out of range.
    """
    if size is None and fps is None:
        return spec
    if spec.kind not in ("camera", "csi", "test"):
        raise UsageError(
            f"{spec.label}: size and frame rate can be asked of cameras on this machine and of "
            "test:, not of this source",
            hint="write them into the pipeline: … ! video/x-raw,width=1280,height=720 ! …"
            if spec.kind == "gst"
            else "omit --size and --fps; the network's own size is reached by resizing",
        )
    if (size and spec.size not in (None, size)) or (fps and spec.fps not in (None, fps)):
        raise UsageError(f"{spec.label}: the source itself states another size or rate")
    _check_format(size, fps)
    return replace(spec, size=size or spec.size, fps=fps if fps is not None else spec.fps)


def _text(text: str) -> SourceSpec:
    if text.startswith("test:"):
        return _test(text)
    if text.startswith(("camera:", "csi:")) or text.isdecimal():
        return _camera(text)
    if text.startswith("gst:"):
        return _pipeline(text)
    if text.startswith("/dev/"):
        return SourceSpec("camera", text, text, live=True)
    if "://" in text:
        return _url(text)
    if not text:
        raise UsageError("the source is empty", hint=EXAMPLES)
    return _path(text)


def _camera(text: str) -> SourceSpec:
    match = _CAMERA.fullmatch(text)
    kind = "csi" if text.startswith("csi:") else "camera"
    if match is None:
        raise UsageError(
            f"{text!r} is not a camera; write {kind}:0 or {kind}:0:1280x720@30", hint=EXAMPLES
        )
    size, fps = _size_and_fps(match)
    index = int(match["index"])
    if kind == "csi":
        return SourceSpec("csi", str(index), f"csi:{index}", True, size, fps)
    return SourceSpec("camera", f"/dev/video{index}", f"camera:{index}", True, size, fps)


def _pipeline(text: str) -> SourceSpec:
    pipeline = text.removeprefix("gst:").strip()
    label = f"gst:{masked(pipeline)}"
    found = elements(pipeline)
    if not found:
        raise UsageError(
            f"{label}: no element in the pipeline",
            hint="edgeseg stream --source 'gst:videotestsrc ! video/x-raw,width=640,height=480'",
        )
    live = not {"filesrc", "multifilesrc", "splitmuxsrc"} & set(found)
    return SourceSpec("gst", pipeline, label, live)


def _test(text: str) -> SourceSpec:
    match = _TEST.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is not a test pattern; write test:, test:640x480@25 or test:?frames=100"
        )
    size, fps = _size_and_fps(match)
    frames = int(match["frames"]) if match["frames"] else None
    if frames == 0:
        raise UsageError(f"{text!r} has no frames")
    return SourceSpec("test", "", text, False, size, fps, frames)


def _size_and_fps(match: re.Match[str]) -> tuple[tuple[int, int] | None, float | None]:
    size = (int(match["width"]), int(match["height"])) if match["width"] else None
    fps = float(match["fps"]) if match["fps"] else None
    _check_format(size, fps)
    return size, fps


def _check_format(size: tuple[int, int] | None, fps: float | None) -> None:
    if size and (min(size) < MIN_SIDE or max(size) > 16_384):
        raise UsageError(f"a frame of {size[0]}x{size[1]} pixels; 16 to 16384 a side are possible")
    if fps is not None and not 0 < fps <= 1000:
        raise UsageError(f"{fps:g} frames a second; more than 0 and at most 1000 are possible")


def _path(text: str) -> SourceSpec:
    path = expanded(text)
    missing_pattern = glob.has_magic(text) and not path.exists()
    picture = path.suffix.lower() in PICTURE_SUFFIXES - {".gif"}  # which may move, as a video does
    if path.is_dir() or missing_pattern or picture:
        return SourceSpec("pictures", str(path), text)
    return SourceSpec("file", str(path), text)


def _url(text: str) -> SourceSpec:
    scheme = text.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise UsageError(
            f"sources of the kind {scheme}:// are not read; {', '.join(SCHEMES)} and paths are",
            hint=EXAMPLES,
        )
    target, label = split_secrets(text)
    suffix = PurePosixPath(urlsplit(text).path).suffix.lower()
    live = not (scheme in ("http", "https") and suffix in VIDEOS)
    return SourceSpec("url", target, label, live)


def split_secrets(url: str) -> tuple[str, str]:
    """Return a URL with its user and password percent-encoded, and one with secrets masked.

    Raises:
        UsageError: It has no host or an invalid port, or is ambiguous.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # An unescaped / ? # or @ in a password ends the host early. The rest would be logged as a
    # path, and part of it sent to DNS as a host, so anything ambiguous is rejected.
    if "@" in rest[len(authority) :] and ":" in authority:
        raise UsageError(
            f"{scheme}://***: there is an '@' after the host",
            hint="percent-encode the password: %2F for /, %3F for ?, %23 for #, %40 for @ "
            "(and %40 for an @ in the path)",
        )
    host, port_fits = _host(f"{scheme}://{authority}")
    if not host or not port_fits:
        raise UsageError(
            f"{scheme}://***: no host, or a port that is not a number from 1 to 65535",
            hint=f"write {scheme}://host:port/path; percent-encode a password with : / ? # or @",
        )
    tail = rest[len(authority) :]
    return f"{scheme}://{_encoded(authority)}{tail}", masked_url(scheme, authority, tail)


def _encoded(authority: str) -> str:
    """Percent-encode user and password; text that is encoded already stays the same."""
    userinfo, at, host = authority.rpartition("@")
    user, colon, password = (
        quote(unquote(part), safe="") if part != ":" else part for part in userinfo.partition(":")
    )
    return f"{user}{colon}{password}{at}{host}"


def _host(url: str) -> tuple[str, bool]:
    """Return the host, and whether the port is valid."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port != 0
    except ValueError:
        return "", False
