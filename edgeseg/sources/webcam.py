"""V4L2 cameras: asked what they are before OpenCV opens them, since it never says why it cannot."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import cv2

from edgeseg.errors import OpenFailed, SourceError
from edgeseg.sources.frames import Frames, Video
from edgeseg.sources.spec import EXAMPLES, SourceSpec
from edgeseg.sources.v4l2 import Camera, Mode, cameras, captures_video, modes

logger = logging.getLogger(__name__)

_LISTED = 12


def open_camera(spec: SourceSpec) -> Frames:
    """Open a source of the kind ``camera`` with the size and rate that it is asked for.

    Raises:
        OpenFailed: There is no such device, it is no camera, in use, or may not be opened.
    """
    device = Path(spec.target)
    if not device.exists():
        raise _no_camera(spec, "there is no such device")
    if not os.access(device, os.R_OK | os.W_OK):
        raise OpenFailed(
            f"{spec.label} ({device}): permission denied",
            hint="sudo usermod -aG video $USER, then log in again",
        )
    offered = _offered(spec)
    capture = cv2.VideoCapture()
    if not capture.open(str(device), cv2.CAP_V4L2):
        raise OpenFailed(
            f"{spec.label} ({device}): it does not open; another program may use it",
            hint=f"fuser -v {device} shows which program; end that, or plug the camera in again",
        )
    _ask_for_format(capture, spec, offered)
    return Video(capture, spec)


def _offered(spec: SourceSpec) -> tuple[Mode, ...]:
    """What the camera can give.

    Raises:
        OpenFailed: It is no V4L2 device that gives video, or went away.
    """
    try:
        offered = modes(spec.target)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return ()  # one of those drivers that may be opened once; OpenCV will fail
        no_device = error.errno in (errno.ENOTTY, errno.EINVAL)
        why = "it is not a camera" if no_device else (error.strerror or "").lower()
        raise _no_camera(spec, why) from error
    if captures_video(spec.target) is False:
        raise _no_camera(spec, "it is a V4L2 device that gives no video (metadata, or an output)")
    return offered


def _ask_for_format(capture: cv2.VideoCapture, spec: SourceSpec, offered: Sequence[Mode]) -> None:
    """Size and rate as the user wants them, and a word where the camera gives others."""
    if spec.size or spec.fps:
        # Raw frames of 720p and more do not fit through USB 2 at full rate.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    if spec.size:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, spec.size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, spec.size[1])
    if spec.fps:
        capture.set(cv2.CAP_PROP_FPS, spec.fps)
    width = round(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    fps = capture.get(cv2.CAP_PROP_FPS)
    other_size = spec.size is not None and spec.size != (width, height)
    other_rate = spec.fps is not None and fps > 0 and abs(fps - spec.fps) > 0.5
    if other_size or other_rate:
        asked = f"{spec.size[0]}x{spec.size[1]}" if spec.size else ""
        asked += f"@{spec.fps:g}" if spec.fps else ""
        logger.warning(
            "%s: asked for %s, the camera gives %dx%d@%g%s",
            *(spec.label, asked, width, height, fps, _list(offered)),
        )


def _list(offered: Sequence[Mode]) -> str:
    names = list(dict.fromkeys(map(str, offered)))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"; it offers {', '.join(names[:_LISTED])}{more}" if names else ""


def _no_camera(spec: SourceSpec, why: str) -> SourceError:
    return OpenFailed(
        f"{spec.label} ({spec.target}): {why}; found {_listing(cameras())}", hint=EXAMPLES
    )


def _listing(found: Sequence[Camera]) -> str:
    named = ", ".join(f"{camera.device} ({camera.name})" for camera in found)
    return named or "no /dev/video* devices"
