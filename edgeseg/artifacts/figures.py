"""Save drawings as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.artifacts.files import atomic_path
from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_png(path: Path, what: str) -> None:
    """Raise UsageError if ``path`` does not end in ``.png``; call it before slow work."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: {what} is drawn as .png, not {path.suffix!r}")


def save_figure(figure: Figure, path: Path, *, dpi: float = 110, **options: Any) -> None:
    """Save a figure of matplotlib without looking for a display.

    Raises:
        UsageError: The path cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)  # pyplot would pick a window system, and fail where there is none.
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=dpi, **options)
