"""Options of a training: data, network and hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgeseg.artifacts.card import Color, Reduce, Resize
from edgeseg.errors import UsageError
from edgeseg.options.base import Background, Data, Option, Options, Seed, Threads
from edgeseg.options.parsing import (
    Range,
    Size,
    height_width,
    positive_range,
    range_text,
    width_height,
)

Architecture = Literal["unet-lite", "unet", "fcn32s", "fcn16s", "fcn8s"]
Schedule = Literal["one-cycle", "poly", "cosine"]
Autocast = Literal["auto", "off", "bf16", "fp16"]
ClassWeights = Literal["none", "median-frequency"]
RecipeName = Literal["street", "microscopy", "few-pictures"]

Touching = Literal["merged", "gap", "boundary"]
"""How touching objects are labelled: ``merged`` as one area, ``gap`` with background between
them, ``boundary`` with a separate class around every object."""

Orientation = Literal["upright", "any"]
"""``upright``: horizontal flips only, for scenes such as roads and rooms. ``any``: all flips and
quarter turns, for microscopes and cameras that look straight down."""

Finite = Field(allow_inf_nan=False)


@dataclass(frozen=True)
class Augmentation(Options):
    """Settings of the augmentation.

    Attributes:
        orientation: Flips and rotations to apply.
        crop: (height, width) of random crops to train on, None for whole pictures. In the same
            time a small network learns more from many crops than from few pictures.
        elastic: Apply smooth elastic deformations, like those of tissue.
        scale: Smallest and largest factor by which pictures are rescaled, and their aspect ratio
            changed by up to a tenth; None for neither. What a smaller picture leaves of the crop
            is not trained on.
        colour: Vary brightness, contrast and colour balance.
        blur: Blur one picture in ten slightly.
    """

    orientation: Orientation = "upright"
    crop: Annotated[
        Size | None, Option("Train on random crops of this size, WIDTHxHEIGHT.", parse=height_width)
    ] = None
    elastic: Annotated[bool, Option("Apply smooth elastic deformations.", names="--elastic")] = (
        False
    )
    scale: Annotated[
        Range | None, Option("Scale pictures randomly.", parse=positive_range, format=range_text)
    ] = (0.8, 1.5)
    colour: bool = True
    blur: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop is not None and min(self.crop) < 8:
            raise UsageError(f"crop is 8×8 or more, not {self.crop}")
        if self.scale is not None and not 0.1 <= self.scale[0] <= self.scale[1] <= 10:
            # Beyond, hardly a pixel of the picture is left in the crop, or one fills it.
            raise UsageError(
                f"scale is a range within 0.1 to 10, e.g. 0.5-2, not {range_text(self.scale)}"
            )


@dataclass(frozen=True)
class Objects:
    """Settings for labels of single objects; see :class:`Recipe`."""

    touching: Touching = "merged"
    border_weight: float = 0.0
    border_sigma: float = 5.0

    @property
    def needed(self) -> bool:
        """Whether object maps must be read."""
        return self.touching != "merged" or self.border_weight > 0


@dataclass(frozen=True)
class Recipe(Options):
    """Training hyperparameters.

    ``autocast`` is the dtype of the forward pass; ``auto`` is bfloat16 if the device computes it
    natively, else float32. Weights are always float32. Class weights by median frequency are those
    of Eigen and Fergus (ICCV 2015). ``border_weight`` and ``border_sigma`` are ``w0`` and
    ``sigma`` of equation 2 of the U-Net paper, in pixels of the network's input. They and all
    values of ``touching`` but ``merged`` need ``instances/``.

    Attributes:
        augmentation: Augmentation of the training pictures, None for none.
    """

    epochs: Annotated[int, Field(ge=1), Option("Number of epochs.")] = 60
    batch_size: Annotated[int, Field(ge=1), Option("Batch size over all processes.")] = 8
    accumulate: Annotated[
        int,
        Field(ge=1),
        Option("Forward passes per optimiser step, for batches that exceed memory."),
    ] = 1
    learning_rate: Annotated[float, Field(gt=0), Finite, Option("Peak learning rate.")] = 3e-3
    weight_decay: Annotated[
        float, Field(ge=0, le=100), Option("Weight decay of AdamW; never of biases and norms.")
    ] = 1e-2
    pretrained_rate: Annotated[
        float,
        Field(gt=0),
        Finite,
        Option("Learning rate of layers that have initial weights, as a fraction."),
    ] = 1.0
    schedule: Annotated[Schedule, Option("Learning-rate schedule.")] = "one-cycle"
    autocast: Annotated[Autocast, Option("Mixed precision of the forward pass.")] = "auto"
    class_weights: Annotated[
        ClassWeights, Option("Class weights; median-frequency favours rare classes.")
    ] = "none"
    dice: Annotated[float, Field(ge=0), Finite, Option("Weight of the Dice loss.")] = 1.0
    ohem: Annotated[
        float,
        Field(gt=0, le=1),
        Option("Share of the pixels, those of the highest loss, in the cross-entropy."),
    ] = 1.0
    border_weight: Annotated[
        float,
        Field(ge=0),
        Finite,
        Option("Weight of borders between objects; 10 in the U-Net paper."),
    ] = 0.0
    border_sigma: Annotated[
        float, Field(gt=0), Finite, Option("Width of these borders, in pixels.")
    ] = 5.0
    touching: Annotated[
        Touching, Option("Labels of touching objects: merged, with a gap, or a boundary.")
    ] = "merged"
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    clip_norm: Annotated[
        float | None, Field(gt=0), Finite, Option("Clip gradients to this L2 norm.")
    ] = None

    @property
    def objects(self) -> Objects:
        """Settings for labels of single objects."""
        return Objects(self.touching, self.border_weight, self.border_sigma)


@dataclass(frozen=True)
class Teaching(Options):
    """What a student learns from a trained network.

    ``unlabelled`` is a folder or glob of pictures, or a video. Its frames take the teacher's
    classes where the teacher's probability reaches ``confidence``; other pixels are not trained on.
    """

    teacher: Annotated[
        Path | None, Option("Run, checkpoint or ONNX network from whose scores to learn.")
    ] = None
    unlabelled: Annotated[
        Path | None, Option("Folder or video of pictures that the teacher labels.")
    ] = None
    temperature: Annotated[
        float, Field(ge=0.01, le=100), Option("Divisor of the scores before softmax.")
    ] = 1.0
    teacher_weight: Annotated[
        float, Field(ge=0), Finite, Option("Weight of the divergence from the teacher.")
    ] = 1.0
    confidence: Annotated[
        float, Field(ge=0, le=1), Option("Lowest probability of a teacher's label.")
    ] = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabelled is not None and self.teacher is None:
            raise UsageError("unlabelled pictures need a teacher", hint="add --teacher RUN")


RECIPES: Mapping[RecipeName, Recipe] = {
    "street": Recipe(epochs=200, augmentation=Augmentation(scale=(0.5, 2.0))),
    "microscopy": Recipe(epochs=100, augmentation=Augmentation("any", elastic=True)),
    "few-pictures": Recipe(
        epochs=300,
        batch_size=4,
        pretrained_rate=0.1,
        augmentation=Augmentation(scale=(0.5, 2.0), elastic=True),
    ),
}
"""Recipes by name. The range of scales is that of DeepLabv3 (Chen et al. 2017, section 4.1), the
elastic deformations are those of the U-Net paper."""


@dataclass(frozen=True)
class TrainConfig(Options):
    """Data, network and hyperparameters of a training.

    ``size`` is (height, width). With ``resume``, an interrupted training of the same configuration
    in ``run`` is continued, or one is started if there is none. With ``tiles``, pictures are cut
    into tiles of ``size`` instead of being resized, in training and wherever the network runs.

    Attributes:
        run: Output folder, e.g. ``runs/nuclei``; its name becomes the network's name.
        options: Options of the architecture.
        recipe: Training hyperparameters.
    """

    data: Data
    run: Path
    arch: Annotated[Architecture, Option("Architecture.")] = "unet-lite"
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    size: Annotated[
        Size,
        Option("Input size of the network, WIDTHxHEIGHT.", parse=height_width, format=width_height),
    ] = (256, 256)
    resize: Annotated[Resize, Option("How pictures are fitted to that size.")] = "stretch"
    tiles: Annotated[
        bool, Option("Train and segment at the pictures' own scale, in tiles.", names="--tiles")
    ] = False
    reduce: Annotated[Reduce, Option("Downsampling; area preserves thin structures.")] = "bilinear"
    color: Annotated[Color, Option("Input colour.")] = "rgb"
    background: Background = None
    recipe: Recipe = field(default_factory=Recipe)
    teaching: Teaching = field(default_factory=Teaching)
    weights: Annotated[
        Path | None,
        Option("Initial weights: VGG16, timm's of the encoder, or the run of another network."),
    ] = None
    pretrained: Annotated[
        Literal["imagenet"] | None,
        Option("imagenet: download torchvision's VGG16 (fcn…) or timm's weights of the encoder."),
    ] = None
    resume: Annotated[bool, Option("Resume the training in --run.", names="--resume")] = False
    tensorboard: Annotated[bool, Option("Write TensorBoard event files.")] = False
    seed: Seed = 0
    threads: Threads = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is not None and self.pretrained is not None:
            raise UsageError(
                "--weights and --pretrained both set the initial weights; give one of them"
            )
        if self.tiles and self.teaching.unlabelled is not None:
            raise UsageError("--tiles and --unlabelled cannot be combined; omit one of them")
        crop = self.crop
        if crop is not None and (crop[0] > self.size[0] or crop[1] > self.size[1]):
            height, width = self.size
            raise UsageError(
                f"--crop {crop[1]}x{crop[0]}: expected at most the --size {width}x{height}"
            )

    @property
    def crop(self) -> tuple[int, int] | None:
        """(height, width) of the random crops to train on, None for whole pictures."""
        augmentation = self.recipe.augmentation
        return None if augmentation is None else augmentation.crop

    @property
    def parts(self) -> int:
        """Crops per picture and epoch, so that an epoch covers as many pixels as without crops."""
        if self.crop is None:
            return 1
        return max(1, round(math.prod(self.size) / math.prod(self.crop)))
