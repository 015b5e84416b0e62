"""From a folder of labelled pictures to a segmented camera stream.

::

    import edgeseg

    with edgeseg.load("runs/nuclei/model.int8.onnx") as engine:
        labels = engine.segment(image)                      # uint8 (H, W)
        for result in edgeseg.Stream("rtsp://camera/live", engine):
            print(result.age_ms, result.mask().mean())

Importing this package loads nothing heavy; each name is fetched at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgeseg.errors import (
    AccuracyGateError,
    ArtifactError,
    AuthFailed,
    CorruptArtifact,
    DatasetError,
    DeviceError,
    EdgesegError,
    InferenceError,
    MismatchedArtifact,
    NonFiniteOutput,
    OpenFailed,
    OutputError,
    RegressionError,
    RuntimeMissing,
    SourceError,
    SourceLost,
    UntrustedArtifact,
    UsageError,
)

if TYPE_CHECKING:
    from edgeseg.artifacts.card import ModelCard
    from edgeseg.engines.base import Engine
    from edgeseg.export.module import export_module
    from edgeseg.loading import load
    from edgeseg.stream import Stream, StreamResult

__version__ = "0.1.0"

__all__ = [
    "AccuracyGateError",
    "ArtifactError",
    "AuthFailed",
    "CorruptArtifact",
    "DatasetError",
    "DeviceError",
    "EdgesegError",
    "Engine",
    "InferenceError",
    "MismatchedArtifact",
    "ModelCard",
    "NonFiniteOutput",
    "OpenFailed",
    "OutputError",
    "RegressionError",
    "RuntimeMissing",
    "SourceError",
    "SourceLost",
    "Stream",
    "StreamResult",
    "UntrustedArtifact",
    "UsageError",
    "__version__",
    "export_module",
    "load",
]

_LAZY = {
    "Engine": "edgeseg.engines.base",
    "ModelCard": "edgeseg.artifacts.card",
    "Stream": "edgeseg.stream",
    "StreamResult": "edgeseg.stream",
    "export_module": "edgeseg.export.module",
    "load": "edgeseg.loading",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
