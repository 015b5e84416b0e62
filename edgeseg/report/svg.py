"""Plots as inline SVG that follows the page's colours, light or dark.

Matplotlib draws with three stand-in colours, which become CSS variables; text stays text, in
the page's font. Figures are drawn small, so that their text is readable at a phone's width.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeseg.errors import needed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, RULE = "#0a0b0c", "#0a0b0d", "#0a0b0e"
_STAND_INS = {INK: "currentColor", FAINT: "var(--faint)", RULE: "var(--rule)"}

# Mid-tones that stand out on white and on near-black, distinct with any colour vision.
COLOURS = ("#3b82c4", "#d9822b", "#2a9d78", "#c8553d", "#9b6fc9", "#7d8590")

# Any: the names that Matplotlib's stubs allow here differ from version to version.
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}

Draw = Callable[["Axes"], None]


@dataclass(frozen=True)
class Plot:
    """A plot that is drawn when a page needs it; ``name`` is unique on its page, height in inches.

    Two plots of the same name and content draw the same text.
    """

    name: str
    title: str
    draw: Draw
    height: float = 3.0

    def svg(self) -> str:
        """Part of a page: no size, no links, no names that clash.

        Raises:
            RuntimeMissing: Matplotlib is not installed.
        """
        with needed("reports need", "report"):
            import matplotlib as mpl
            from matplotlib.backends.backend_svg import FigureCanvasSVG
            from matplotlib.figure import Figure
        with mpl.rc_context(_STYLE | {"svg.hashsalt": self.name}):
            figure = Figure(figsize=(4.9, self.height), layout="constrained")
            figure.patch.set_alpha(0)
            axes = figure.add_subplot()
            axes.patch.set_alpha(0)
            self.draw(axes)
            buffer = io.StringIO()
            FigureCanvasSVG(figure)
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return _embed(buffer.getvalue(), self.name, self.title)


def legend(axes: Axes) -> None:
    """Above the plot, where it covers no curve."""
    handles, _ = axes.get_legend_handles_labels()
    columns = 1 if len(handles) > 4 else 2
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        handlelength=1.4,
        borderaxespad=0.2,
        columnspacing=1.4,
    )


def milliseconds_axis(axes: Axes, low: float, high: float) -> None:
    """A time axis from zero, logarithmic where the values lie too far apart for that."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if high <= 10 * low or low <= 0:
        axes.set_xlim(0, high * 1.08)
        return
    axes.set_xscale("log")
    axes.set_xlim(low * 0.85, high * 1.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _embed(drawn: str, name: str, title: str) -> str:
    svg = drawn[drawn.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # In HTML the namespaces are implied, and a page without URLs is easily seen to load nothing.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for stand_in, variable in _STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
