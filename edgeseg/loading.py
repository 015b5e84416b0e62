"""Open any artefact as an engine."""

from __future__ import annotations

from pathlib import Path

from edgeseg.artifacts.files import require_file
from edgeseg.artifacts.sidecar import verify
from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine

_CHECKPOINT_SUFFIXES = {".safetensors", ".pt", ".pth", ".ckpt"}


def load(path: str | Path, *, threads: int | None = None) -> Engine:
    """Open a checkpoint, an ONNX network or an engine; all have the same interface.

    Args:
        path: ``model.safetensors`` (needs torch), ``model*.onnx`` or ``model*.engine``.
        threads: CPU threads of the runtime; None for the runtime's default.

    Raises:
        UsageError: No such file, or not a kind that edgeseg knows.
        ArtifactError: Empty, truncated, altered, or made for something else.
        RuntimeMissing: A required library or device is missing.
    """
    path = require_file(Path(path))
    if path.suffix in _CHECKPOINT_SUFFIXES:
        verify(path, required=False)  # Before torch is imported, which takes seconds.
        from edgeseg.training.predictor import open_torch

        return open_torch(path)
    return open_engine(path, threads=threads)
