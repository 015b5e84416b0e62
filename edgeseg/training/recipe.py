"""What a training is told: the data, the network, and the recipe by which it learns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from edgeseg.data.augment import Augmentation
from edgeseg.data.instances import Touching
from edgeseg.data.loader import Objects
from edgeseg.errors import UsageError

Schedule = Literal["one-cycle", "poly", "cosine"]
Autocast = Literal["auto", "off", "bf16", "fp16"]
ClassWeights = Literal["none", "median-frequency"]

_CHOICES = MappingProxyType(
    {
        "schedule": get_args(Schedule),
        "autocast": get_args(Autocast),
        "class_weights": get_args(ClassWeights),
        "touching": get_args(Touching),
    }
)


@dataclass(frozen=True)
class Recipe:
    """How a network learns.

    Attributes:
        epochs: Passes over the training pictures.
        batch_size: Pictures a forward pass, over all processes together.
        accumulate: Forward passes a step of the optimiser, for batches that do not fit in memory.
        learning_rate: Peak of the schedule.
        weight_decay: Of AdamW.
        schedule: Course of the learning rate, see :mod:`edgeseg.training.schedule`.
        autocast: Type of the forward pass. ``auto`` is bfloat16 where the device computes it
            natively, else float32. Weights stay float32 with all of them.
        class_weights: ``median-frequency`` lifts rare classes: Eigen and Fergus (ICCV 2015).
        dice: Weight of the Dice part of the loss, 0 leaves cross-entropy alone.
        border_weight: ``w0`` of equation 2 of the U-Net paper, 0 leaves the borders between
            objects as they are. Above 0 it needs ``instances/``.
        border_sigma: ``sigma`` of that equation, in pixels of the network's input.
        touching: How objects that touch are learnt, see :mod:`edgeseg.data.instances`; all but
            ``merged`` need ``instances/``.
        augmentation: How pictures vary, None shows them as they are.
        clip_norm: L2 norm to which larger gradients are scaled down, None leaves them alone.
    """

    epochs: int = 60
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    schedule: Schedule = "one-cycle"
    autocast: Autocast = "auto"
    class_weights: ClassWeights = "none"
    dice: float = 1.0
    border_weight: float = 0.0
    border_sigma: float = 5.0
    touching: Touching = "merged"
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            _require(value in choices, f"{name} is one of {', '.join(choices)}, not {value!r}")
        for name in ("epochs", "batch_size", "accumulate"):
            _require(getattr(self, name) >= 1, f"{name} is 1 or more, not {getattr(self, name)}")
        for name in ("learning_rate", "border_sigma"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"{name} is above 0, not {value}")
        clip = self.clip_norm
        _require(clip is None or 0 < clip < math.inf, f"clip_norm is above 0, not {clip}")
        for name in ("weight_decay", "dice", "border_weight"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"{name} is 0 or more, not {value}")

    @property
    def objects(self) -> Objects:
        """What the labels say of single objects."""
        return Objects(self.touching, self.border_weight, self.border_sigma)


@dataclass(frozen=True)
class TrainConfig:
    """What to train on, what to train, and how.

    Attributes:
        data: Root with ``train`` and ``val``, see :mod:`edgeseg.data.folders`.
        run: Folder for the results, e.g. ``runs/nuclei``; its name becomes the network's.
        arch: A key of ``models.ARCHITECTURES``.
        options: Options of the architecture.
        size: (height, width) of the network's input.
        resize: ``stretch`` or ``letterbox``.
        reduce: ``bilinear`` or ``area``, as :class:`edgeseg.card.InputSpec` says.
        color: ``rgb``, ``bgr`` or ``gray``.
        recipe: How it learns.
        weights: File of VGG16 weights, or a checkpoint of another network of the family to go
            on from: see :func:`edgeseg.models.pretrained.load_pretrained`.
        pretrained: ``imagenet`` starts from torchvision's weights.
        resume: Go on where an interrupted training of the same configuration in ``run`` stood;
            where there is none, begin.
        tensorboard: Write scalars and a prediction an epoch for TensorBoard into ``run``.
        seed: Of the fresh weights, the order and the augmentation.
        threads: CPU threads of PyTorch, None leaves its default.
    """

    data: Path
    run: Path
    arch: str = "unet-lite"
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    size: tuple[int, int] = (256, 256)
    resize: str = "stretch"
    reduce: str = "bilinear"
    color: str = "rgb"
    recipe: Recipe = field(default_factory=Recipe)
    weights: Path | None = None
    pretrained: Literal["imagenet"] | None = None
    resume: bool = False
    tensorboard: bool = False
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        _require(self.threads is None or self.threads >= 1, f"threads is 1 or more: {self.threads}")
        _require(
            self.weights is None or self.pretrained is None,
            "weights and pretrained are two beginnings; give one of them",
        )
        crop = self.crop
        _require(
            crop is None or all(part <= whole for part, whole in zip(crop, self.size, strict=True)),
            f"crop is at most the size {self.size}, not {crop}",
        )

    @property
    def crop(self) -> tuple[int, int] | None:
        """(height, width) of the random part that is trained on, None for the whole picture."""
        augmentation = self.recipe.augmentation
        return None if augmentation is None else augmentation.crop

    @property
    def parts(self) -> int:
        """How many crops a picture gives an epoch, so that it sees as many pixels as without."""
        if self.crop is None:
            return 1
        return max(1, round(math.prod(self.size) / math.prod(self.crop)))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)
