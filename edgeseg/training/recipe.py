"""Configuration of a training: data, network and hyperparameters."""

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
    """Training hyperparameters.

    Attributes:
        epochs: Passes over the training pictures.
        batch_size: Pictures per forward pass, summed over all processes.
        accumulate: Forward passes per optimiser step, for batches that do not fit in memory.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay of AdamW.
        schedule: Learning-rate schedule, see :mod:`edgeseg.training.schedule`.
        autocast: dtype of the forward pass. ``auto`` is bfloat16 if the device computes it
            natively, else float32. Weights are always float32.
        class_weights: ``median-frequency`` gives rare classes more weight: Eigen and Fergus
            (ICCV 2015).
        dice: Weight of the Dice term of the loss; 0 uses cross-entropy only.
        border_weight: ``w0`` of equation 2 of the U-Net paper, the extra weight of borders between
            objects; 0 disables it. Values above 0 need ``instances/``.
        border_sigma: ``sigma`` of the same equation, in pixels of the network's input.
        touching: How to separate touching objects, see :mod:`edgeseg.data.instances`; all values
            but ``merged`` need ``instances/``.
        augmentation: Augmentation of the training pictures, None for none.
        clip_norm: Maximum L2 norm of the gradient, None for no clipping.
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
        """Settings for labels of single objects."""
        return Objects(self.touching, self.border_weight, self.border_sigma)


@dataclass(frozen=True)
class TrainConfig:
    """Data, network and hyperparameters of a training.

    Attributes:
        data: Root folder of the data set, with ``train`` and ``val``; see
            :mod:`edgeseg.data.folders`.
        run: Output folder, e.g. ``runs/nuclei``; its name becomes the network's name.
        arch: Architecture, a key of ``models.ARCHITECTURES``.
        options: Options of the architecture.
        size: Input size of the network, (height, width).
        resize: How pictures are fitted to that size, ``stretch`` or ``letterbox``.
        reduce: Interpolation, ``bilinear`` or ``area``, see
            :class:`edgeseg.artifacts.card.InputSpec`.
        color: Channel order of the input, ``rgb``, ``bgr`` or ``gray``.
        background: Name of the class that views leave clear, or ``none``; None for the data
            set's own, see :class:`edgeseg.artifacts.card.ClassMap`.
        recipe: Training hyperparameters.
        weights: VGG16 weights or an edgeseg checkpoint to start from; see
            :func:`edgeseg.models.pretrained.load_pretrained`.
        pretrained: ``imagenet`` starts from torchvision's ImageNet weights.
        resume: Continue an interrupted training of the same configuration in ``run``, or start one
            if there is none.
        tensorboard: Write scalars and one prediction per epoch for TensorBoard to ``run``.
        seed: Random seed of initial weights, picture order and augmentation.
        threads: CPU threads of PyTorch, None for PyTorch's default.
    """

    data: Path
    run: Path
    arch: str = "unet-lite"
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    size: tuple[int, int] = (256, 256)
    resize: str = "stretch"
    reduce: str = "bilinear"
    color: str = "rgb"
    background: str | None = None
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
        """(height, width) of the random crops to train on, None for whole pictures."""
        augmentation = self.recipe.augmentation
        return None if augmentation is None else augmentation.crop

    @property
    def parts(self) -> int:
        """Crops per picture and epoch, so that an epoch covers as many pixels as without crops."""
        if self.crop is None:
            return 1
        return max(1, round(math.prod(self.size) / math.prod(self.crop)))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)
