"""One dense pass of VGG16 over a picture against one pass a patch: same outputs, less work.

    python bench/papers/dense.py [--scale smoke|cpu|gpu] [--out DIR]

The network is VGG16 with its dense layers as convolutions, in two forms. Without padding an
output sees 404 pixels; its patches are of that size, and both ways give the same outputs. With
padding, as published, patches are of 224 pixels, and each sees its own rim of zeros instead of
the neighbourhood, so that outputs differ. Neighbouring outputs lie 32 pixels apart in both.
Weights are random: neither time nor equality depends on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import common
import numpy as np
from common import Column, Experiment, Lab, Outcome, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from edgeseg.models.vgg import VGG16

EXPERIMENT = Experiment(
    name="dense",
    title="Dense against patch by patch",
    paper="Long, Shelhamer and Darrell 2015, section 3.1",
    claim="A network made fully convolutional gives a 10×10 grid of outputs more than 5 times "
    "faster than patch by patch, since the computation of overlapping patches is shared.",
    columns=(
        Column("outputs", "Outputs", "", 0),
        Column("patches_seconds", "Patch by patch", "s", 2),
        Column("dense_seconds", "Dense", "s", 2),
        Column("speedup", "Faster", "×", 1),
        Column("flop_ratio", "Ratio of operations", "×", 1),
        Column("difference", "Largest difference, of the largest output", "%", 4),
    ),
    data=None,
)
STRIDE = 32
PATCHES = {"no padding": 404, "padding": 224}
"""Patch size of each form: what one output of fc7 sees, and what VGG16 was trained on."""
SAME = 1e-3


@dataclass(frozen=True)
class Settings:
    """One scale: grids of ``side × side`` outputs, each way timed ``repeats`` times.

    ``thinner`` divides the channels of all layers; ``batch`` patches share a pass.
    """

    sides: tuple[int, ...]
    repeats: int
    thinner: int
    batch: int
    seed: int = 0


SCALES = {
    "smoke": Settings(sides=(2, 3), repeats=1, thinner=16, batch=1),
    "cpu": Settings(sides=(2, 5), repeats=2, thinner=1, batch=1),
    "gpu": Settings(sides=(2, 4, 7, 10), repeats=10, thinner=1, batch=25),
}


def body(lab: Lab) -> Outcome:
    """A row for each form of the network and grid."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    for form in PATCHES:
        for side in settings.sides:
            detail = {"form": form, **asdict(settings), "side": side}
            del detail["sides"]
            lab.row(f"{form}, {side}×{side}", detail, partial(measure, form, side, settings))
    return judge(lab.scale, lab.rows)


def measure(form: str, side: int, settings: Settings) -> dict[str, Any]:
    """Times of both ways, medians over repeats that take turns, and how far outputs differ."""
    import torch

    from edgeseg.models.layers import initialise
    from edgeseg.training.predictor import default_device, to_default_device

    patch = PATCHES[form]
    size = patch + STRIDE * (side - 1)
    network = vgg16(form, settings.thinner)
    torch.manual_seed(settings.seed)
    initialise(network.to_empty(device=default_device()))
    to_default_device(network)
    picture = torch.randn(1, 3, size, size, device=default_device())
    patches = cut(picture, patch).split(settings.batch)
    times: dict[str, list[float]] = {"dense": [], "patches": []}
    # cuDNN's TF32 would round to 10 bits of mantissa, and not the same in both ways.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        # The first passes, which allocate memory and choose kernels, are counted and not timed.
        saved = side**2 * _operations(network, patches[0][:1]) / _operations(network, picture)
        for _ in range(settings.repeats):
            seconds, dense = _timed(lambda: network(picture)[-1])
            times["dense"].append(seconds)
            seconds, single = _timed(lambda: torch.cat([network(part)[-1] for part in patches]))
            times["patches"].append(seconds)
    joined = single.reshape(side, side, -1).permute(2, 0, 1)
    median = {name: float(np.median(values)) for name, values in times.items()}
    return {
        "outputs": side * side,
        "patches_seconds": median["patches"],
        "dense_seconds": median["dense"],
        "speedup": median["patches"] / median["dense"],
        "flop_ratio": saved,
        "difference": float((joined - dense[0]).abs().max() / dense.abs().max()),
    }


def vgg16(form: str, thinner: int) -> VGG16:
    """VGG16 without weights yet, on the meta device, with all channels divided by ``thinner``."""
    import torch
    from torch import nn

    from edgeseg.models.vgg import VGG16

    with torch.device("meta"):
        network = VGG16()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            outputs = layer.out_channels // thinner
            inputs = layer.in_channels // (thinner if layer.in_channels > 3 else 1)
            layer.weight = nn.Parameter(layer.weight[:outputs, :inputs])
            assert layer.bias is not None
            layer.bias = nn.Parameter(layer.bias[:outputs])
            if form == "no padding":
                layer.padding = (0, 0)
    network.fc6.padding = (0, 0)  # one output a patch
    return network.eval()


def cut(picture: Tensor, patch: int) -> Tensor:
    """All patches of a picture (1, C, H, W), row by row: (N, C, patch, patch)."""
    windows = picture[0].unfold(1, patch, STRIDE).unfold(2, patch, STRIDE)
    return windows.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds at 10×10: the same outputs, more than 5 times faster."""
    by_form = {form: [row for row in rows if row["key"].startswith(form)] for form in PATCHES}
    largest = {form: max(found, key=lambda row: row["outputs"]) for form, found in by_form.items()}
    exact, padded = largest["no padding"], largest["padding"]
    worst = max(row["difference"] for row in by_form["no padding"])
    seen = (
        f"{exact['outputs']} outputs come {exact['speedup']:.1f} times faster without padding and "
        f"{padded['speedup']:.1f} times with; the ratios of the operations are "
        f"{exact['flop_ratio']:.1f} and {padded['flop_ratio']:.1f}. Without padding outputs "
        f"differ by {worst:.0e} of the largest at most, with padding by "
        f"{padded['difference']:.0%}."
    )
    remark = (
        "The paper timed AlexNet on a GPU, which a single patch does not fill. On a CPU the gain "
        "follows the operations that are saved. Outputs are the same only where no padding "
        "reaches."
    )
    held = worst <= SAME and exact["speedup"] > 5
    return Outcome(seen, None if scale == "smoke" else held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """How much faster over the side of the grid, measured and by operations."""
    axes = figure.subplots()
    for form, colour in zip(PATCHES, ("#3b82c4", "#d9822b"), strict=True):
        found = [row for row in rows if row["key"].startswith(form)]
        sides = [row["settings"]["side"] for row in found]
        label = f"{form}, patches of {PATCHES[form]} px"
        axes.plot(sides, [row["speedup"] for row in found], "o", color=colour, label=label)
        ratios = [row["flop_ratio"] for row in found]
        axes.plot(sides, ratios, "--", color=colour, label="ratio of operations")
    axes.axhline(5, color="0.6", linewidth=1, linestyle=":", label="the paper: more than 5")
    axes.set_xticks(sides)
    axes.set_xlabel("side of the grid of outputs")
    axes.set_ylabel("times faster than patch by patch")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def _operations(network: VGG16, pictures: Tensor) -> int:
    """Floating-point operations of a pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network(pictures)
    return int(counter.get_total_flops())


def _timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds until the result is there, and the result."""
    import torch

    began = time.perf_counter()
    result = work()
    if result.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
