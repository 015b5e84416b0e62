"""Options of the results of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from edgeseg.options.base import Option
from edgeseg.options.privacy import Obscuring


@dataclass(frozen=True)
class Outputs(Obscuring):
    """Outputs per picture: ``FOLDER/NAME.labels.png`` and ``FOLDER/NAME.overlay.png``.

    The folder is created if missing. Pixel values of coloured label maps are still ids.
    """

    folder: Annotated[Path, Option("Output folder for label maps and overlays.", names="--out")] = (
        Path("predictions")
    )
    opacity: Annotated[float, Field(ge=0, le=1), Option("Opacity of the overlay, from 0 to 1.")] = (
        0.5
    )
    overlays: Annotated[bool, Option("Write overlays as well.")] = True
    coloured: Annotated[
        bool, Option("Store the class colours as palette of the label maps.", names="--coloured")
    ] = False

    def paths(self, name: str) -> tuple[Path, Path | None]:
        """Return the paths of a picture's label map and overlay."""
        overlay_path = self.folder / f"{name}.overlay.png" if self.overlays else None
        return self.folder / f"{name}.labels.png", overlay_path
