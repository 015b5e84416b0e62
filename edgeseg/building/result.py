"""Result of a build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts.sidecar import SideCar
from edgeseg.engines.tensorrt.layers import LayerTable


@dataclass(frozen=True)
class BuildResult:
    """The engine file, its side-car, and optional tables and plots.

    ``layers`` is the layer table of a TensorRT engine, ``plot`` the trade-off of ``auto_mixed``.
    """

    engine: Path
    sidecar: SideCar
    layers: LayerTable | None = None
    plot: Path | None = None
