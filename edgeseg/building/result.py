"""Result of a build, and how its files get into place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.artifacts.workshop import install
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


@dataclass(frozen=True)
class BuiltFile:
    """A complete artefact in the temporary folder, and its side-car, which is not written yet."""

    path: Path
    sidecar: SideCar


def put_in_place(
    built: Sequence[BuiltFile],
    folder: Path,
    plot: Path | None = None,
    layers: LayerTable | None = None,
) -> BuildResult:
    """Write the side-cars and move all files into ``folder``; the first artefact is the engine."""
    for each in built:
        each.sidecar.save(sidecar_path(each.path))
    placed = [install(each.path, folder) for each in built]
    moved = None if plot is None else plot.replace(folder / plot.name)
    return BuildResult(placed[0], built[0].sidecar, layers, moved)
