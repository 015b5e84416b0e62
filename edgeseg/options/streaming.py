"""Options of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgeseg.errors import UsageError
from edgeseg.options.base import Option, Options
from edgeseg.options.privacy import Privacy

Mode = Literal["latency", "throughput"]
Codec = Literal["auto", "h264", "hevc", "mjpeg"]

MAX_FRAME_PIXELS = 178_956_970
"""Default maximum of pixels per frame; above it Pillow reports a decompression bomb."""


@dataclass(frozen=True)
class Access(Options):
    """How network cameras are logged in to and verified, see :mod:`edgeseg.sources.credentials`."""

    credentials: Annotated[
        Path | None, Option("netrc file (mode 600) with logins for cameras whose URL has none.")
    ] = None
    ca: Annotated[
        Path | None,
        Option("Additional CA certificates (PEM) to trust for TLS cameras.", metavar="FILE"),
    ] = None
    insecure_camera: Annotated[
        tuple[str, ...],
        Option("Accept any TLS certificate from this camera; repeatable.", metavar="HOST[:PORT]"),
    ] = ()


@dataclass(frozen=True)
class StreamOptions(Access, Privacy):
    """Options of a stream.

    With ``realtime``, files play at their own rate. With ``keep_trying``, cameras that cannot be
    opened are retried like those whose connection was lost. With ``strict``, SourceLost is raised
    if a file ends before its declared end, and the error of a source that fails even while others
    go on. Frames above ``max_pixels`` are skipped in live sources and raise an error in files.

    ``blur`` and ``pixelate`` name classes, alone or separated by commas, and ``cover`` names files
    of zones, ``"door.json"`` or ``"door.json on 0"``. Results, and so all sinks, have frames in
    which these are obscured already.

    With ``tiles``, frames are not resized to the network's input but cut into tiles of that size,
    ``batch`` of them per call, as :func:`edgeseg.engines.tiles.segment_tiled` does; label maps have
    the size of the frames. None leaves it to the card of the network.

    Raises:
        UsageError: A value is out of range, or ``tile_margin`` is given without ``tiles``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile_margin is not None and not self.tiles:
            raise UsageError("--tile-margin is of tiles", hint="add --tiles")

    realtime: Annotated[
        bool | None,
        Option(
            "Skip to the newest frame (default for live sources), or process every frame "
            "(default for files).",
            names="--realtime/--every-frame",
        ),
    ] = None
    mode: Annotated[
        Mode | None,
        Option(
            "latency: no frame waits (default for one live source); throughput: most frames "
            "per second (default for files and several sources)."
        ),
    ] = None
    decode: Annotated[
        str,
        Option(
            "Device that decodes network cameras and video files through PyAV: auto, cpu, or one "
            "that FFmpeg knows, e.g. cuda or vaapi; auto: one that opens, otherwise the CPU.",
            suggestions=("auto", "cpu", "cuda", "vaapi"),
        ),
    ] = "auto"
    batch: Annotated[
        int | None,
        Field(ge=1),
        Option("Maximum batch size; default: the engine's own, or one frame per source."),
    ] = None
    tiles: Annotated[
        bool | None,
        Option(
            "Segment overlapping tiles at the frames' original scale, or resize frames; default: "
            "as the network was trained.",
            names="--tiles/--no-tiles",
        ),
    ] = None
    tile_margin: Annotated[
        int | None,
        Field(ge=0),
        Option("Border of each tile to discard, in pixels; default: 1/8 of its shorter side."),
    ] = None
    smooth: Annotated[
        float | None,
        Field(gt=0, le=5),
        Option(
            "Hold a new label back for up to SECONDS, e.g. 0.2, until it lasts, unless the picture "
            "changes there; against flicker.",
            metavar="SECONDS",
        ),
    ] = None
    keep_trying: Annotated[
        bool,
        Option(
            "Wait for cameras, disks and ports that are not available yet.", names="--keep-trying"
        ),
    ] = False
    max_frames: Annotated[
        int | None, Field(ge=1), Option("Stop after this many frames, over all sources.")
    ] = None
    duration: Annotated[float | None, Field(gt=0), Option("Stop after this many seconds.")] = None
    strict: Annotated[
        bool, Option("Exit with 5 if a file is damaged, with 9 if an output lacks results.")
    ] = False
    opacity: Annotated[float, Field(ge=0, le=1), Option("Opacity of the overlay, from 0 to 1.")] = (
        0.5
    )
    outline: Annotated[bool, Option("Outline each region.")] = False
    names: Annotated[bool, Option("Write class names on regions.")] = True
    legend: Annotated[bool, Option("Show a legend of the class colours.")] = True
    max_pixels: Annotated[int, Field(ge=1), Option("Drop frames with more pixels than this.")] = (
        MAX_FRAME_PIXELS
    )
