"""A U-Net with and without its skip connections, on nuclei.

python bench/papers/skips.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import common
from common import Experiment, Lab, Outcome, Row, average
from variants import COLUMNS, draw_bands, train_variants

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENT = Experiment(
    name="skips",
    title="Skip connections",
    paper="Ronneberger, Fischer and Brox 2015, section 2; Long et al. 2015, section 4.2",
    claim="Features of high resolution, joined with the enlarged ones, let the network localise: "
    "without them what is lost in pooling stays lost.",
    columns=COLUMNS,
    data="dsb2018",
)
SKIPS = {"with skips": {"skips": True}, "without skips": {"skips": False}}


def body(lab: Lab) -> Outcome:
    """Train the pairs, seed by seed."""
    return judge(lab.scale, train_variants(lab, SKIPS))


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where borders lose most: more than the pixels do on the whole."""
    figures = ("mean_iou", "border_accuracy", "pixel_accuracy", "f1")
    lost = {
        figure: 100 * (average(rows, "with skips", figure) - average(rows, "without", figure))
        for figure in figures
    }
    seen = (
        f"Without skips mean IoU changes by {-lost['mean_iou']:+.1f} points, F1 by "
        f"{-lost['f1']:+.1f}; pixel accuracy by {-lost['border_accuracy']:+.1f} near borders and "
        f"by {-lost['pixel_accuracy']:+.1f} on the whole."
    )
    remark = "The network without skips has fewer parameters, in the first layers of its decoder. "
    if scale == "cpu":
        remark += "A narrow network after few epochs on a third of the pictures, which are shrunk."
    held = lost["mean_iou"] > 0 and lost["border_accuracy"] > max(0.0, lost["pixel_accuracy"])
    return Outcome(seen, None if scale == "smoke" else held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Accuracy near borders, a line a network."""
    draw_bands(figure, rows, list(SKIPS))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
