"""Naive tiles against the overlap-tile strategy: labels along the seams.

    python bench/papers/tiles.py [--scale smoke|cpu|gpu] [--data DIR] [--out DIR]

One network with valid convolutions and one with padding are trained on crops of slices, then
segment held-out slices whole, in tiles side by side, and in tiles that overlap by a margin. The
seams are the same in all ways: the tiles grow with the margin. Naive tiles of the valid network
mirror their own rims, those of the other pad with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import numpy as np
from common import Column, Experiment, Lab, Outcome, Row
from numpy.typing import NDArray

from edgeseg.data.folders import Split, load_sample, read_split
from edgeseg.ops.preprocess import preprocess
from edgeseg.options.training import Architecture, Augmentation, Recipe, TrainConfig
from edgeseg.runs import CHECKPOINT
from edgeseg.tiling import predict_tiled

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from edgeseg.training.predictor import TorchEngine

EXPERIMENT = Experiment(
    name="tiles",
    title="Overlap-tile",
    paper="Ronneberger, Fischer and Brox 2015, section 2 and figure 2",
    claim="Valid convolutions and tiles that overlap segment pictures of any size seamlessly: "
    "the labels are those of the whole picture in one pass.",
    columns=(
        Column("near_differ", "Unlike the whole picture, within 8 px of a seam", "%", 3),
        Column("differ", "Unlike the whole picture", "%", 3),
        Column("near_error", "Pixel error within 8 px of a seam", "%", 2),
        Column("error", "Pixel error", "%", 2),
        Column("computed", "Pixels computed for one of the picture", "", 2),
        Column("epochs", "Epochs", "", 0),
        Column("train_seconds", "Training", "s", 0),
    ),
    data="isbi2012",
)
NEAR = 8
EDGES = (1, 2, 4, 8, 16, 32, 64)
"""Upper ends of the distances to a seam in ``profile``, pixels."""
WHOLE, NAIVE = "whole picture", "naive tiles"
SAME = 1e-5
"""Share of pixels that rounding may turn where two classes are equally likely."""


@dataclass(frozen=True)
class Settings:
    """One scale; ``step`` is the distance of the seams, every n-th slice as in ``steps``."""

    size: tuple[int, int]
    crop: tuple[int, int]
    networks: dict[Architecture, dict[str, bool | int]]
    margins: tuple[int, ...]
    step: int
    epochs: int
    batch_size: int
    steps: tuple[int, int] = (1, 1)


SCALES = {
    "smoke": Settings(
        size=(64, 64),
        crop=(64, 64),
        networks={"unet": {"width": 8, "depth": 1}, "unet-lite": {"width": 8, "depth": 2}},
        margins=(8,),
        step=64,
        epochs=1,
        batch_size=2,
        steps=(23, 7),
    ),
    "cpu": Settings(
        size=(512, 512),
        crop=(256, 256),
        networks={
            "unet": {"width": 8, "depth": 3, "batch_norm": True},
            "unet-lite": {"width": 8, "depth": 4},
        },
        margins=(16, 32, 64, 128),
        step=128,
        epochs=6,
        batch_size=4,
    ),
    "gpu": Settings(
        size=(512, 512),
        crop=(256, 256),
        networks={
            "unet": {"width": 64, "depth": 4, "batch_norm": True},
            "unet-lite": {"width": 16, "depth": 4},
        },
        margins=(16, 32, 64, 128),
        step=128,
        epochs=200,
        batch_size=8,
    ),
}


def body(lab: Lab) -> Outcome:
    """Train each network, then a row for each way to cut the pictures."""
    settings = SCALES[lab.scale]
    lab.settings = asdict(settings)
    steps = dict(zip(("train", "val"), settings.steps, strict=True))
    data = common.link_subset(lab.data, lab.folder / "data", steps)
    split = read_split(data, "val")
    for arch, options in settings.networks.items():
        config = TrainConfig(
            data=data,
            run=lab.run_folder(arch),
            arch=arch,
            options=dict(options),
            size=settings.size,
            color="gray",
            recipe=Recipe(
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=1e-3,
                augmentation=Augmentation(orientation="any", crop=settings.crop),
            ),
        )
        score = partial(measure, config.run, split, settings.step)

        def of_the_whole(_: TorchEngine, score: Callable[..., dict[str, Any]] = score) -> Any:
            return score(None)

        trained = lab.train(f"{arch}: {WHOLE}", config, of_the_whole)
        # Valid convolutions leave no choice: the margin is what they lose.
        own = own_margin(arch, options)
        for margin in (0, *([own] if own else settings.margins)):
            way = f"margin {margin}" if margin else NAIVE
            detail = trained["settings"] | {"margin": margin, "step": settings.step}
            lab.row(f"{arch}: {way}", detail, partial(score, margin), after=trained)
    return judge(lab.scale, lab.rows)


def own_margin(arch: str, options: Mapping[str, bool | int]) -> int:
    """Pixels that an architecture loses on each side."""
    import torch

    from edgeseg.models import build

    with torch.device("meta"):
        model = build(arch, 2, 1, **options)
    return int(model.margin)  # type: ignore[arg-type]


def measure(run: Path, split: Split, step: int, margin: int | None) -> dict[str, Any]:
    """Segment each picture whole and in one way; compare both with each other and the truth.

    Args:
        run: Folder of the network.
        split: Pictures, segmented at their own scale.
        step: Distance of the seams, pixels.
        margin: Of the tiles; None compares the whole picture, at the places of the seams.
    """
    network = _Network(run)
    count = _Count()
    given = seen = 0
    for sample in split:
        image, mask = load_sample(sample, split.classes)
        own_scale = {"height": mask.shape[0], "width": mask.shape[1]}
        picture = preprocess(image, network.spec.model_copy(update=own_scale))
        whole = network.same_size(picture[np.newaxis])[0]
        before = network.seen
        found = network.segment(picture, step, margin)
        given, seen = given + mask.size, seen + network.seen - before
        counted = mask != split.classes.ignore
        count.add(
            distances(mask.shape, step)[counted],
            (found != whole)[counted],
            (found != mask)[counted],
        )
    return count.figures() | {"computed": seen / given}


def distances(shape: tuple[int, ...], step: int) -> NDArray[np.float64]:
    """Distance of each pixel of a picture to the nearest seam, 1 beside it: float64 (H, W)."""
    rows, columns = (
        np.abs(np.arange(size)[:, np.newaxis] + 0.5 - np.arange(step, size, step)).min(
            axis=1, initial=np.inf
        )
        for size in shape
    )
    return np.asarray(np.minimum(rows[:, np.newaxis], columns) + 0.5, np.float64)


class _Network:
    """A trained network for float32 (N, C, H, W) of any size; ``seen`` counts its input pixels."""

    def __init__(self, run: Path) -> None:
        from edgeseg.training.checkpoint import load_checkpoint
        from edgeseg.training.predictor import to_default_device

        model, card = load_checkpoint(run / CHECKPOINT)
        self.spec = card.input
        self.seen = 0
        self._model: Any = to_default_device(model).eval()
        self._model.register_forward_pre_hook(self._look)

    def _look(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        batch, _, height, width = inputs[0].shape
        self.seen += batch * height * width

    def segment(
        self, picture: NDArray[np.float32], step: int, margin: int | None
    ) -> NDArray[np.uint8]:
        """Labels (H, W): in one pass, or in tiles that keep ``step`` pixels or a few more."""
        if margin is None:
            return np.asarray(self.same_size(picture[np.newaxis])[0], np.uint8)
        side = step + 2 * margin
        if margin and hasattr(self._model, "valid_size"):
            side = int(self._model.valid_size(side))
        return predict_tiled(
            self.as_it_is if margin else self.same_size,
            picture,
            tile=(side, side),
            margin=margin,
            stride=self._model.stride,
        )

    def same_size(self, pictures: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Labels of the pictures' size; a valid network sees mirrored rims."""
        from edgeseg.models.mirror import same_size_logits

        return self._labels(pictures, partial(same_size_logits, self._model))

    def as_it_is(self, pictures: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Labels of the size that the network gives."""
        return self._labels(pictures, self._model)

    def _labels(
        self, pictures: NDArray[np.float32], forward: Callable[[Tensor], Tensor]
    ) -> NDArray[np.uint8]:
        import torch

        device = next(self._model.parameters()).device
        with torch.inference_mode():
            logits = forward(torch.from_numpy(pictures).to(device))
            return np.asarray(logits.argmax(dim=1).to(torch.uint8).cpu().numpy(), np.uint8)


class _Count:
    """Pixels by their distance to a seam: all, unlike the whole picture, unlike the truth."""

    def __init__(self) -> None:
        self._pixels: NDArray[np.int64] = np.zeros((3, len(EDGES) + 1), np.int64)

    def add(
        self, distance: NDArray[np.float64], differ: NDArray[np.bool_], wrong: NDArray[np.bool_]
    ) -> None:
        place = np.searchsorted(EDGES, distance)
        everything = np.ones_like(differ)
        for row, chosen in zip(self._pixels, (everything, differ, wrong), strict=True):
            row += np.bincount(place[chosen], minlength=row.size)

    def figures(self) -> dict[str, Any]:
        near = self._pixels[:, : EDGES.index(NEAR) + 1].sum(axis=1)
        total = self._pixels.sum(axis=1)
        profile = self._pixels[1] / np.maximum(self._pixels[0], 1)
        return {
            "differ": total[1] / total[0],
            "error": total[2] / total[0],
            "near_differ": near[1] / max(near[0], 1),
            "near_error": near[2] / max(near[0], 1),
            "profile": profile[: len(EDGES)].tolist(),
        }


def judge(scale: str, rows: Sequence[Row]) -> Outcome:
    """The claim holds where overlapping tiles of the valid network are the whole picture's."""
    found = {row["key"]: row for row in rows}
    naive, whole = found[f"unet: {NAIVE}"], found[f"unet: {WHOLE}"]
    overlapped = next(row for key, row in found.items() if key.startswith("unet: margin"))
    padded = [row for key, row in found.items() if key.startswith("unet-lite: margin")]
    best = min(padded, key=lambda row: row["near_differ"])
    seen = (
        f"Within {NEAR} pixels of a seam naive tiles of the valid network label "
        f"{naive['near_differ']:.2%} unlike the whole picture, overlapping ones "
        f"{overlapped['near_differ']:.2%}; pixel error there {naive['near_error']:.2%}, "
        f"{overlapped['near_error']:.2%}, whole {whole['near_error']:.2%}. With padding "
        f"{found[f'unet-lite: {NAIVE}']['near_differ']:.2%} unlike, and "
        f"{best['near_differ']:.2%} with a margin of {best['settings']['margin']}."
    )
    remark = (
        "With half the receptive field as margin tiles of a padded network equal the whole picture "
        "too, at the price of more pixels computed, save near the picture's own rim: tiles mirror "
        "it, where the network alone pads. How much seams cost depends on how far a network looks."
    )
    held = overlapped["differ"] <= SAME and naive["near_error"] > overlapped["near_error"]
    return Outcome(seen, None if scale == "smoke" else held, remark)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Share of labels that tiles change over the distance to a seam, a panel a network."""
    networks = list(dict.fromkeys(row["key"].partition(":")[0] for row in rows))
    panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    for axes, network in zip(panels, networks, strict=True):
        for row in rows:
            name, _, way = row["key"].partition(": ")
            if name == network and way != WHOLE:
                heights = [100 * share for share in row["profile"]]
                axes.plot(EDGES, heights, marker="o", markersize=4, label=way)
        axes.set_xscale("log", base=2)
        axes.set_xticks(EDGES, map(str, EDGES))
        axes.set_title(network, fontsize=10)
        axes.set_xlabel("distance to a seam at most, pixels")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    panels[0].set_ylabel("labels unlike the whole picture, %")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    common.run(EXPERIMENT, body, draw, arguments)


if __name__ == "__main__":
    main()
