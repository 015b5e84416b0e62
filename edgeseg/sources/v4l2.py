"""Query capabilities and modes of V4L2 devices by ioctl (linux/videodev2.h, Video4Linux API).

Nothing is streamed, so this works even while another program uses the device.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import Structure, Union, c_char, c_uint32, sizeof
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import TypeVar

from edgeseg.machine import read_text

VIDEO_CAPTURE = 1
CAP_VIDEO_CAPTURE = 0x00000001
CAP_VIDEO_CAPTURE_MPLANE = 0x00001000
CAP_DEVICE_CAPS = 0x80000000
DISCRETE = 1


class Capability(Structure):
    """struct v4l2_capability."""

    _fields_ = (
        ("driver", c_char * 16),
        ("card", c_char * 32),
        ("bus_info", c_char * 32),
        ("version", c_uint32),
        ("capabilities", c_uint32),
        ("device_caps", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class FormatDescription(Structure):
    """struct v4l2_fmtdesc."""

    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("flags", c_uint32),
        ("description", c_char * 32),
        ("pixelformat", c_char * 4),
        ("reserved", c_uint32 * 4),
    )


class _Numbers(Union):
    """The union of struct v4l2_frmsizeenum and v4l2_frmivalenum: discrete, or stepwise."""

    _fields_ = (("discrete", c_uint32 * 2), ("stepwise", c_uint32 * 6))


class FrameSize(Structure):
    """struct v4l2_frmsizeenum; stepwise: least, most, step of the width, then of the height."""

    _fields_ = (
        ("index", c_uint32),
        ("pixel_format", c_char * 4),
        ("type", c_uint32),
        ("is", _Numbers),
        ("reserved", c_uint32 * 2),
    )


class FrameInterval(Structure):
    """struct v4l2_frmivalenum; stepwise: least, most, step, each a fraction of a second."""

    _fields_ = (
        ("index", c_uint32),
        ("pixel_format", c_char * 4),
        ("width", c_uint32),
        ("height", c_uint32),
        ("type", c_uint32),
        ("is", _Numbers),
        ("reserved", c_uint32 * 2),
    )


_READ, _BOTH = 2, 3


def _number(direction: int, number: int, argument: type[Structure]) -> int:
    """The request code: asm-generic/ioctl.h, as arm64 and x86 have it."""
    return direction << 30 | sizeof(argument) << 16 | ord("V") << 8 | number


QUERYCAP = _number(_READ, 0, Capability)
ENUM_FMT = _number(_BOTH, 2, FormatDescription)
ENUM_FRAMESIZES = _number(_BOTH, 74, FrameSize)
ENUM_FRAMEINTERVALS = _number(_BOTH, 75, FrameInterval)

_Asked = TypeVar("_Asked", Capability, FormatDescription, FrameSize, FrameInterval)


@dataclass(frozen=True)
class Mode:
    """A video mode of a camera.

    Attributes:
        pixels: Pixel format as a four-character code: ``MJPG``, ``YUYV``, ``NV12``, ….
        size: (width, height) in pixels; the largest one if the camera supports a range.
        fps: Maximum frames per second at that size; None if the camera reports none.
    """

    pixels: str
    size: tuple[int, int]
    fps: float | None

    def __str__(self) -> str:
        rate = "" if self.fps is None else f"@{self.fps:g}"
        return f"{self.size[0]}x{self.size[1]}{rate} {self.pixels}"


def captures_video(device: str) -> bool | None:
    """Whether a device captures video; None if it is not a V4L2 device or cannot be opened.

    Many USB cameras have a second node for metadata; only the capabilities of the node itself,
    not those of the whole device, distinguish it.
    """
    try:
        with _opened(device) as descriptor:
            told = _ask(descriptor, QUERYCAP, Capability())
    except OSError:
        return None
    own = told.device_caps if told.capabilities & CAP_DEVICE_CAPS else told.capabilities
    return bool(own & (CAP_VIDEO_CAPTURE | CAP_VIDEO_CAPTURE_MPLANE))


def modes(device: str) -> tuple[Mode, ...]:
    """Return the modes of a camera in the order of its driver.

    Raises:
        OSError: The device cannot be opened, or is not a V4L2 device (ENOTTY).
    """
    with _opened(device) as descriptor:
        _ask(descriptor, QUERYCAP, Capability())
        return tuple(_modes(descriptor))


def _modes(descriptor: int) -> Iterator[Mode]:
    formats = FormatDescription(type=VIDEO_CAPTURE)
    for form in _listed(descriptor, ENUM_FMT, formats):
        letters = bytes(form.pixelformat)
        for size in _listed(descriptor, ENUM_FRAMESIZES, FrameSize(pixel_format=letters)):
            numbers = getattr(size, "is")
            if size.type == DISCRETE:
                width, height = numbers.discrete
            else:
                width, height = numbers.stepwise[1], numbers.stepwise[4]
            fps = _most(descriptor, letters, (width, height))
            yield Mode(letters.decode("latin-1").rstrip(), (width, height), fps)


def _most(descriptor: int, letters: bytes, size: tuple[int, int]) -> float | None:
    """Maximum frames per second at a size.

    The first two numbers of an interval are the discrete interval or the shortest one.
    """
    asked = FrameInterval(pixel_format=letters, width=size[0], height=size[1])
    rates = []
    for interval in _listed(descriptor, ENUM_FRAMEINTERVALS, asked):
        numerator, denominator = getattr(interval, "is").discrete
        if numerator:
            rates.append(round(denominator / numerator, 3))
        if interval.type != DISCRETE:
            break
    return max(rates, default=None)


def _listed(descriptor: int, request: int, asked: _Asked) -> Iterator[_Asked]:
    """Yield entries 0, 1, … until the driver reports the end of the list (EINVAL)."""
    for index in range(256):
        entry = type(asked).from_buffer_copy(asked)
        entry.index = index
        try:
            yield _ask(descriptor, request, entry)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY):  # the end, or no such list at all
                return
            raise


def _ask(descriptor: int, request: int, asked: _Asked) -> _Asked:
    answer = bytearray(bytes(asked))
    ioctl(descriptor, request, answer)
    return type(asked).from_buffer_copy(answer)


@contextmanager
def _opened(device: str) -> Iterator[int]:
    descriptor = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


__all__ = ["Camera", "Mode", "cameras", "modes"]


@dataclass(frozen=True)
class Camera:
    """A V4L2 device and whether this user may read it."""

    device: str
    name: str
    readable: bool


def cameras(root: Path = Path("/")) -> tuple[Camera, ...]:
    """Return the V4L2 devices under ``root`` with their kernel names.

    Nodes that report no video capture, such as a USB camera's metadata node, are left out.
    """
    found = []
    devices = (root / "dev").glob("video*")
    for device in sorted(devices, key=lambda path: (len(path.name), path.name)):
        if re.fullmatch(r"video\d+", device.name) and captures_video(str(device)) is not False:
            name = read_text(root / "sys/class/video4linux" / device.name / "name").strip()
            found.append(Camera(f"/dev/{device.name}", name, os.access(device, os.R_OK | os.W_OK)))
    return tuple(found)
