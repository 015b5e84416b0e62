"""Run a segmentation engine on cameras and videos: sources, the loop, sinks, and a report.

::

    with open_engine(Path("runs/nuclei/model.onnx")) as engine:
        report = run(Stream("camera:0", engine), [Recording(Path("out.mkv"))])
"""

from __future__ import annotations

from edgeseg.options.streaming import Mode, StreamOptions
from edgeseg.sources.own import FrameSource, from_frames
from edgeseg.sources.spec import SourceLimits, SourceSpec, parse_source
from edgeseg.stream.loop import Stream
from edgeseg.stream.result import StreamResult
from edgeseg.stream.run import SourceReport, StreamReport, run
from edgeseg.stream.sinks import (
    Background,
    Each,
    JsonLines,
    Masks,
    Recording,
    Scoring,
    Sink,
    SourceStatus,
    StopStream,
    UncertainFrames,
    VideoPublisher,
    Window,
)
from edgeseg.stream.view import View

__all__ = [
    "Background",
    "Each",
    "FrameSource",
    "JsonLines",
    "Masks",
    "Mode",
    "Recording",
    "Scoring",
    "Sink",
    "SourceLimits",
    "SourceReport",
    "SourceSpec",
    "SourceStatus",
    "StopStream",
    "Stream",
    "StreamOptions",
    "StreamReport",
    "StreamResult",
    "UncertainFrames",
    "VideoPublisher",
    "View",
    "Window",
    "from_frames",
    "parse_source",
    "run",
]
