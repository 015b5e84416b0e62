"""Parse, mask and complete GStreamer pipelines written in the syntax of ``gst-launch-1.0``.

Nothing here needs GStreamer, and nothing checks whether a pipeline works.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from edgeseg.sources.masking import masked_tail

LIVE_SINK = "appsink drop=true max-buffers=1 sync=false"
"""Keeps only the newest frame, or a slow reader would receive old ones."""

FILE_SINK = "appsink max-buffers=4 sync=false"

TO_BGR = "videoconvert ! video/x-raw,format=BGR"

_ATOM = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\\.|[^\s"'\\])+""", re.DOTALL)
_ELEMENT = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LAST_SINK = re.compile(r"!(\s*appsink(?:\s+[^\s!]+)*\s*)$")
_SECRET_NAME = re.compile(
    r"(?i)(?:.*-)?(?:pw|pwd|pass[a-z]*|pin|token|jwt|secret[a-z]*|key|auth[a-z]*|sig[a-z]*"
    r"|extra-headers|cookies?|credentials?|session[a-z]*)"
)
_USERINFO = re.compile(r"(?s)(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<userinfo>.*)@")
_URL = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^/?#\"']*)(?P<tail>[^\"']*)")


def atoms(pipeline: str) -> Iterator[str]:
    """Its words: ``!``, elements, ``name=value`` (quotes included), caps, pads."""
    return (match[0] for match in _ATOM.finditer(_joined(pipeline)))


def elements(pipeline: str) -> tuple[str, ...]:
    """Names of the elements that it makes, each once, in order.

    References (``t.``), properties and caps are none.
    """
    found: list[str] = []
    in_caps = False
    first = True
    for atom in atoms(pipeline):
        if atom == "!":
            in_caps, first = False, True
            continue
        in_caps = in_caps or (first and "/" in atom.partition("=")[0])
        first = False
        if not in_caps and _ELEMENT.fullmatch(atom):
            found.append(atom)
    return tuple(dict.fromkeys(found))


def masked(pipeline: str) -> str:
    """The pipeline for people to see: passwords, tokens and what may hold one are ``***``."""
    loose = _ATOM.sub("", _joined(pipeline))
    if '"' in loose or "'" in loose:  # an open quote: the end of a password is unknown
        return "***"
    return " ".join(_masked(atom) for atom in atoms(pipeline))


def giving_bgr(pipeline: str, *, live: bool) -> str:
    """The pipeline with a conversion to BGR before its last appsink, which is added if absent.

    Where frames are BGR already the conversion hands them through. An appsink that stands
    elsewhere than at the end is left alone.
    """
    text = pipeline.strip().rstrip("!").rstrip()
    if match := _LAST_SINK.search(text):
        # OpenCV 4.6 finds its sink by the name that GStreamer gives it and by no other.
        sink = re.sub(r"\sname=(?!\S*(?:appsink|opencvsink))\S+", "", match[1])
        return f"{text[: match.start()]}! {TO_BGR} !{sink}".rstrip()
    if "appsink" in elements(text):
        return text
    return f"{text} ! {TO_BGR} ! {LIVE_SINK if live else FILE_SINK}"


def jetson_camera(sensor: int, size: tuple[int, int] | None, fps: float | None) -> str:
    """The pipeline of a CSI camera on a Jetson: the ISP's NV12 in GPU memory → BGR.

    Args:
        sensor: Sensor number, as counted by ``nvarguscamerasrc``.
        size: (width, height) in pixels; None for the sensor's default.
        fps: Frames per second; None for the sensor's default.
    """
    caps = "video/x-raw(memory:NVMM)"
    if size:
        caps += f",width={size[0]},height={size[1]}"
    if fps:
        rate = Fraction(fps).limit_denominator(1001)
        caps += f",framerate={rate.numerator}/{rate.denominator}"
    # nvvidconv leaves GPU memory but gives no BGR, videoconvert gives it from BGRx quickest.
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! {caps} ! nvvidconv ! "
        f"video/x-raw,format=BGRx ! {TO_BGR} ! {LIVE_SINK}"
    )


def _joined(pipeline: str) -> str:
    """``name = value`` without its blanks, as GStreamer reads it too."""
    return re.sub(r"(?<=[\w)-])\s*=\s*", "=", pipeline)


def _masked(atom: str) -> str:
    name, equals, _ = atom.partition("=")
    if equals and _SECRET_NAME.fullmatch(name):
        return f"{name}=***"
    # Up to the last @, for a raw one may stand in a password.
    without_user = _USERINFO.sub(_masked_userinfo, atom)
    return _URL.sub(lambda url: url["head"] + masked_tail(url["tail"]), without_user)


def _masked_userinfo(match: re.Match[str]) -> str:
    user, colon, _ = match["userinfo"].partition(":")
    shown = user if colon and re.fullmatch(r"[\w.-]+", user) else ""
    return f"{match['scheme']}{shown}{':' if shown else ''}***@"
