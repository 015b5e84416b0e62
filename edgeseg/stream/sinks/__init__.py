"""Where results go: a window, a recording, files, lines of JSON."""

from __future__ import annotations

from edgeseg.stream.sinks.base import Sink, SourceStatus, StopStream
from edgeseg.stream.sinks.jsonlines import JsonLines
from edgeseg.stream.sinks.masks import Masks
from edgeseg.stream.sinks.publisher import VideoPublisher
from edgeseg.stream.sinks.recording import Recording
from edgeseg.stream.sinks.scoring import Scoring
from edgeseg.stream.sinks.supervised import Background, Each
from edgeseg.stream.sinks.uncertain import UncertainFrames
from edgeseg.stream.sinks.window import Window

__all__ = [
    "Background",
    "Each",
    "JsonLines",
    "Masks",
    "Recording",
    "Scoring",
    "Sink",
    "SourceStatus",
    "StopStream",
    "UncertainFrames",
    "VideoPublisher",
    "Window",
]
