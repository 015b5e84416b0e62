"""PyAV, silent, and the devices on which it decodes: which there are, whether one is in use."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from edgeseg.errors import RuntimeMissing

CPU = "cpu"

_CODECS = ("h264", "hevc", "mjpeg", "vp9", "av1", "mpeg4")
"""Codecs of cameras and recordings, of which a device should decode at least one."""


def import_av() -> Any:
    """Import PyAV, with FFmpeg's messages off: they may hold passwords, and edgeseg reports damage.

    They are off by default, but not if another library turned them on. Any level, even PANIC, lets
    PyAV take the interpreter's lock on FFmpeg's threads for every error. A decoder that is freed
    meanwhile waits for these threads and holds the lock: nothing goes on, ever.

    Raises:
        ImportError: PyAV is not installed.
    """
    import av.logging

    av.logging.set_level(None)
    return av


@cache
def device_for(decode: str) -> str | None:
    """Return the device for a value of ``--decode``, after opening it once; None for the CPU.

    ``auto`` is the first device that opens. What is no name of a device is treated as one that
    PyAV does not offer.

    Raises:
        RuntimeMissing: PyAV is not installed or does not offer the device, or it does not open.
    """
    if decode == CPU:
        return None
    try:
        av = import_av()
    except ImportError as error:
        if decode == "auto":
            return None
        raise RuntimeMissing(
            f"--decode {decode}: PyAV is not installed", hint="pip install 'edgeseg[av]'"
        ) from error
    offered = _offered()
    if decode == "auto":
        return next((name for name, codec in offered.items() if not _trouble(name, codec)), None)
    why = _trouble(decode, offered[decode]) if decode in offered else "PyAV does not offer it"
    if why:
        names = ", ".join(offered) or "none"
        raise RuntimeMissing(
            f"--decode {decode}: {why}",
            hint=f"devices that this build of PyAV {av.__version__} offers: {names}; "
            "--decode auto takes one that opens, otherwise the CPU",
        )
    return decode


def open_input(target: str, decode: str, **options: Any) -> Any:
    """Call ``av.open`` with the device for ``decode``; what it cannot decode, the CPU decodes."""
    av = import_av()
    device = device_for(decode)
    if device is not None:
        from av.codec.hwaccel import HWAccel

        options["hwaccel"] = HWAccel(device, allow_software_fallback=True)
    return av.open(target, **options)


def decoder_of(stream: Any, decode: str) -> str:
    """Return the device that decodes a video stream, known from its first frame on, or ``cpu``."""
    device = device_for(decode)
    if device is None:
        return CPU
    context = stream.codec_context
    # The decoder chooses its format with the first frame, and does without a device that fails.
    formats = {each.format.name for each in context.codec.hardware_configs if each.format}
    return device if context.pix_fmt in formats else CPU


def _offered() -> dict[str, Any]:
    """Return the devices of this build of PyAV, each with a codec that it decodes."""
    import av

    found: dict[str, Any] = {}
    for name in _CODECS:
        with suppress(ValueError):  # the build lacks the decoder
            codec = av.Codec(name, "r")
            for each in getattr(codec, "hardware_configs", ()):  # older versions lack it
                if each.is_supported:
                    found.setdefault(each.device_type.name, codec)
    return found


def _trouble(device: str, codec: Any) -> str | None:
    """Open a device, and return why it fails, if it does."""
    import av
    from av.codec.hwaccel import HWAccel

    try:
        HWAccel(device, allow_software_fallback=False).create(codec)
    except (av.FFmpegError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        return f"there is no such device, or no driver for it (FFmpeg: {why})"
    return None
