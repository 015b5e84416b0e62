"""Three ways for a decoder to enlarge, on nuclei: bilinear, learnt deconvolution, unpooling.

python bench/papers/upsampling.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]
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
    name="upsampling",
    title="Three ways to enlarge",
    paper="Long et al. 2015, section 3.3; Badrinarayanan, Kendall and Cipolla 2015 for unpooling",
    claim="Enlarging within the network is effective whether the filter is fixed to bilinear or "
    "learnt; putting maxima back to where they were keeps borders without learning a filter.",
    columns=COLUMNS,
    data="dsb2018",
)
WAYS = ("bilinear", "deconvolution", "unpooling")
CLOSE = 0.03
"""Mean IoU by which the ways may differ and still all count as effective."""


def body(lab: Lab) -> Outcome:
    """Train the three, seed by seed."""
    return judge(lab.scale, train_variants(lab, {way: {"upsampling": way} for way in WAYS}))


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where no way is far behind the best."""
    figures = ("mean_iou", "border_accuracy")
    found = {way: [100 * average(rows, way, figure) for figure in figures] for way in WAYS}
    seen = "; ".join(
        f"{way}: mean IoU {iou:.1f} %, pixel accuracy near borders {border:.1f} %"
        for way, (iou, border) in found.items()
    )
    remark = (
        "The decoder learns two 3×3 convolutions after each enlargement in all three, so the "
        "filter alone has little left to do. "
    )
    if scale == "cpu":
        remark += "A narrow network after few epochs on a third of the pictures, which are shrunk."
    ious = [iou for iou, _ in found.values()]
    held = max(ious) - min(ious) <= 100 * CLOSE
    return Outcome(f"{seen}.", None if scale == "smoke" else held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Accuracy near borders, a line a network."""
    draw_bands(figure, rows, WAYS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
