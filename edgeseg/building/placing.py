"""Move a finished build next to its network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeseg.artifacts import sidecar as sidecars
from edgeseg.artifacts.workshop import install
from edgeseg.building.result import BuildResult


def place(artifacts: Sequence[Path], folder: Path) -> BuildResult:
    """Move artefacts, side-cars and plots into ``folder``; the first artefact is the engine."""
    placed = [install(artifact, folder) for artifact in artifacts]
    made = sidecars.read(placed[0])
    assert made is not None  # It was moved along.
    plots = sorted(artifacts[0].parent.glob("*.png"))
    moved = [plot.replace(folder / plot.name) for plot in plots]
    return BuildResult(placed[0], made, plot=moved[0] if moved else None)
