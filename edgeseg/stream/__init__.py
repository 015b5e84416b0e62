"""Run a segmentation engine on cameras and videos: sources, the loop, sinks, and a report.

::

    with open_engine(Path("runs/nuclei/model.onnx")) as engine:
        report = run(Stream("camera:0", engine), [Recording(Path("out.mkv"))])

Each sink is fetched at first use, so that a stream starts sooner.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgeseg.options.streaming import Mode, StreamOptions
from edgeseg.sources.own import FrameSource, from_frames
from edgeseg.sources.spec import SourceLimits, SourceSpec, parse_source
from edgeseg.stream.loop import Stream
from edgeseg.stream.result import StreamResult
from edgeseg.stream.run import SourceReport, StreamReport, run
from edgeseg.stream.sinks.base import Sink, SourceStatus, StopStream
from edgeseg.stream.sinks.supervised import Background, Each
from edgeseg.stream.view import View

if TYPE_CHECKING:
    from edgeseg.stream.sinks.jsonlines import JsonLines
    from edgeseg.stream.sinks.masks import Masks
    from edgeseg.stream.sinks.publisher import VideoPublisher
    from edgeseg.stream.sinks.recording import Recording
    from edgeseg.stream.sinks.scoring import Scoring
    from edgeseg.stream.sinks.uncertain import UncertainFrames
    from edgeseg.stream.sinks.window import Window

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

_LAZY = {
    "JsonLines": "jsonlines",
    "Masks": "masks",
    "Recording": "recording",
    "Scoring": "scoring",
    "UncertainFrames": "uncertain",
    "VideoPublisher": "publisher",
    "Window": "window",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"edgeseg.stream.sinks.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__
