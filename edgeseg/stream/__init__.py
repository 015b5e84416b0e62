"""Cameras and videos through an engine: sources, the loop, sinks, a report.

::

    with open_engine(Path("runs/nuclei/model.onnx")) as engine:
        report = run(Stream("camera:0", engine), [Recording(Path("out.mkv"))])
"""

from __future__ import annotations

from edgeseg.stream.loop import Stream, StreamResult
from edgeseg.stream.run import SourceReport, StreamReport, run
from edgeseg.stream.sinks import JsonLines, Masks, Recording, Sink, SourceInfo, StopStream
from edgeseg.stream.source import Limits, SourceSpec, parse_source
from edgeseg.stream.window import Window

__all__ = [
    "JsonLines",
    "Limits",
    "Masks",
    "Recording",
    "Sink",
    "SourceInfo",
    "SourceReport",
    "SourceSpec",
    "StopStream",
    "Stream",
    "StreamReport",
    "StreamResult",
    "Window",
    "parse_source",
    "run",
]
