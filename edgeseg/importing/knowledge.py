"""What is known of a network besides its graph: files that exporters leave beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeseg.importing.options import Color, Normalise, ResizeRule
from edgeseg.importing.reading import Original


@dataclass(frozen=True)
class Known:
    """What files beside a network say; None where they are silent.

    ``origins`` names the file for each field.
    """

    names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    color: Color | None = None
    normalise: Normalise | None = None
    resize: ResizeRule | None = None
    origins: dict[str, str] = field(default_factory=dict)


def known_of(original: Original) -> Known:
    """Collect what is known of a network."""
    return Known()
