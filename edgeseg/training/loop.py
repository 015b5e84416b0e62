"""Training, from the top to the bottom of one module.

::

    from edgeseg.training.loop import TrainConfig, train
    result = train(TrainConfig(data=Path("data"), run=Path("runs/mine")))

One process, one device; a GPU is used if there is one.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from edgeseg import __version__
from edgeseg.artifacts import write_atomic
from edgeseg.card import ClassMap, InputSpec, ModelCard
from edgeseg.console import Track, silent
from edgeseg.data.augment import Augment, Orientation
from edgeseg.data.folders import Split, read_split
from edgeseg.data.loader import MEMORY_LIMIT, LabelledTensors, batches
from edgeseg.errors import DatasetError, NonFiniteOutput, UsageError
from edgeseg.evaluation import Evaluation, Labelled, check_classes, read, score
from edgeseg.models import build, default_options
from edgeseg.models.fcn import FCN8s
from edgeseg.training.checkpoint import save_checkpoint
from edgeseg.training.losses import segmentation_loss
from edgeseg.training.plots import Curves, save_curves, save_predictions
from edgeseg.training.predictor import TorchEngine, open_torch, place

log = logging.getLogger(__name__)

AVERAGE_DECAY = 0.98
"""What is validated and kept is the running mean of the weights over at most about 50 steps."""


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
        color: ``rgb``, ``bgr`` or ``gray``.
        epochs: Passes over the training pictures.
        batch_size: Pictures a step.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Of AdamW.
        orientation: Which ways round scenes may be, None trains without augmentation.
        crop: (height, width) of a random part to train on, None for the whole picture.
        weights: ImageNet weights of VGG16 for ``fcn8s``.
        seed: Of the fresh weights, the order and the augmentation.
        threads: CPU threads of PyTorch, None leaves its default.
    """

    data: Path
    run: Path
    arch: str = "unet-lite"
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    size: tuple[int, int] = (256, 256)
    resize: str = "stretch"
    color: str = "rgb"
    epochs: int = 60
    batch_size: int = 8
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    orientation: Orientation | None = "upright"
    crop: tuple[int, int] | None = None
    weights: Path | None = None
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is 1 or more, not {value}")
        if self.crop is not None and self.orientation is None:
            raise UsageError("crop is part of the augmentation; it needs an orientation")
        if self.crop is not None and not all(
            8 <= part <= whole for part, whole in zip(self.crop, self.size, strict=True)
        ):
            raise UsageError(f"crop is from 8×8 to the size {self.size}, not {self.crop}")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate is above 0, not {self.learning_rate}")


@dataclass(frozen=True)
class EpochStats:
    """One epoch: mean training loss, learning rate at its end, metrics on ``val``, wall seconds."""

    epoch: int
    loss: float
    learning_rate: float
    mean_iou: float
    pixel_accuracy: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """What :func:`train` leaves behind.

    Attributes:
        checkpoint: ``RUN/model.safetensors``, of the epoch with the best mean IoU on ``val``.
        card: Its card; ``metrics`` holds the figures that ``edgeseg eval`` gives for it.
        history: Every epoch.
        seconds: Wall time of it all.
        curves: ``RUN/curves.png``, loss and mean IoU.
        strip: ``RUN/predictions.png``, held-out pictures from the worst to the best.
    """

    checkpoint: Path
    card: ModelCard
    history: list[EpochStats]
    seconds: float
    curves: Path
    strip: Path


@dataclass(frozen=True)
class _Learner:
    """What changes from step to step."""

    model: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    augment: Augment | None
    ignore: int
    device: torch.device


def train(
    config: TrainConfig,
    track: Track = silent,
    on_epoch: Callable[[EpochStats], None] | None = None,
) -> TrainResult:
    """Train a network and keep the checkpoint that is best on the validation pictures.

    The same configuration on the same machine with the same thread count gives the same
    weights on a CPU. Ctrl-C ends the training early with the best checkpoint so far.

    Args:
        config: What and how.
        track: Progress, one item an epoch.
        on_epoch: Called after each epoch's validation.

    Raises:
        UsageError: A value of the configuration, or ``run`` cannot be written.
        ArtifactError: The data set or the weights are bad.
        NonFiniteOutput: The loss is no longer a number.
        KeyboardInterrupt: Ctrl-C before the first epoch ended; there is nothing to keep.
    """
    started = time.perf_counter()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return _train(config, track, on_epoch, started)


def _train(
    config: TrainConfig,
    track: Track,
    on_epoch: Callable[[EpochStats], None] | None,
    started: float,
) -> TrainResult:
    splits = read_split(config.data, "train"), read_split(config.data, "val")
    if not splits[0].name:
        raise DatasetError(
            f"{config.data}: expected the folders train and val, found one split without a name",
            mend="set some pictures aside: DIR/train/{images,masks} and DIR/val/{images,masks}",
        )
    card = make_card(config, splits[0].classes)
    model = build(card.arch, len(card.classes), card.input.channels, **card.options)
    if config.weights is not None:
        _load_weights(model, config)
    model = place(model)
    checkpoint = config.run / "model.safetensors"
    tensors = LabelledTensors(splits[0], card.classes, card.input, track=track)
    loader = batches(tensors, config.batch_size, config.seed, _parts(config))
    learner = _learner(model, config, card, steps=config.epochs * len(loader))
    network = learner.average.module
    engine = TorchEngine(network, card, checkpoint)
    held_out = _held_out(engine, splits[1])
    history: list[EpochStats] = []
    best = -math.inf
    try:
        for epoch in track(range(1, config.epochs + 1), "train", config.epochs):
            begun = time.perf_counter()
            loss = _run_epoch(learner, loader, epoch)
            evaluation = _validate(learner, engine, held_out, epoch)
            history.append(_stats(epoch, loss, learner, evaluation, begun))
            if evaluation.mean_iou > best:
                best = evaluation.mean_iou
                card = card.model_copy(update={"metrics": _metrics(evaluation, epoch)})
                save_checkpoint(checkpoint, network, card)
            if on_epoch is not None:
                on_epoch(history[-1])
    except KeyboardInterrupt:
        if not history:
            raise
        log.warning("stopped after %d of %d epochs", len(history), config.epochs)
    return _finish(checkpoint, history, held_out, started)


def make_card(config: TrainConfig, classes: ClassMap) -> ModelCard:
    """The card of the network to be trained; raises UsageError for a bad architecture or size."""
    grey = config.color == "gray"
    statistics = {"mean": (0.449,), "std": (0.226,)} if grey else {}
    height, width = config.size
    try:
        spec = InputSpec.model_validate(
            {"height": height, "width": width, "color": config.color, "resize": config.resize}
            | statistics
        )
    except ValueError as error:
        raise UsageError(f"size, color or resize is not valid: {error}") from error
    with torch.device("meta"):
        build(config.arch, len(classes), spec.channels, **config.options)
    return ModelCard(
        name=config.run.resolve().name,
        arch=config.arch,
        options=default_options(config.arch) | config.options,
        classes=classes,
        input=spec,
        dataset=config.data.resolve().name,
        edgeseg_version=__version__,
    )


def _parts(config: TrainConfig) -> int:
    """How many crops a picture gives an epoch, so that an epoch sees as many pixels as without."""
    if config.crop is None:
        return 1
    return max(1, round(math.prod(config.size) / math.prod(config.crop)))


def _load_weights(model: nn.Module, config: TrainConfig) -> None:
    assert config.weights is not None
    if not isinstance(model, FCN8s):
        raise UsageError(
            f"{config.arch} starts from fresh weights; --weights is for fcn8s",
            mend="leave --weights out, or train with --arch fcn8s",
        )
    copied = model.load_pretrained(config.weights)
    log.info("took %d tensors from %s", len(copied), config.weights)


def _held_out(engine: TorchEngine, split: Split) -> Iterable[Labelled]:
    """The validation pictures: decoded once if they fit into memory, else at each epoch."""
    check_classes(engine, split)
    first = read(split.samples[0], engine)
    if len(split) * (first[0].nbytes + first[1].nbytes) <= MEMORY_LIMIT:
        return [read(sample, engine) for sample in split]
    return _Rereading(engine, split)


@dataclass(frozen=True)
class _Rereading:
    engine: TorchEngine
    split: Split

    def __iter__(self) -> Iterator[Labelled]:
        return (read(sample, self.engine) for sample in self.split)


def _learner(model: nn.Module, config: TrainConfig, card: ModelCard, steps: int) -> _Learner:
    device = next(model.parameters()).device
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    # Smith and Topin, "Super-Convergence" (2018): warm-up, then cosine down to nothing.
    # One step more than there are: past its end the cosine would rise again.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.learning_rate, total_steps=steps + 1, pct_start=0.2
    )
    # Batch statistics of a few pictures jump from step to step; averaged with the weights
    # they make validation steady.
    average = AveragedModel(model, avg_fn=_average, use_buffers=True)
    augment = None
    if config.orientation is not None:
        augment = Augment(card.input, config.orientation, card.classes.ignore, config.crop).to(
            device
        )
    return _Learner(model, average, optimizer, schedule, augment, card.classes.ignore, device)


def _run_epoch(
    learner: _Learner, loader: Iterable[tuple[torch.Tensor, torch.Tensor]], epoch: int
) -> float:
    """Mean loss of one pass."""
    losses = []
    half = _native_bfloat16(learner.device)
    learner.model.train()
    for pictures, masks in loader:
        pictures = pictures.to(learner.device)
        masks = masks.to(learner.device)
        if learner.augment is not None:
            pictures, masks = learner.augment(pictures, masks)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with torch.autocast(learner.device.type, torch.bfloat16, enabled=half):
            logits = learner.model(pictures)
        loss = segmentation_loss(logits, masks.long(), learner.ignore)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise _diverged(learner, epoch, pictures)
        learner.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        learner.optimizer.step()
        learner.schedule.step()
        learner.average.update_parameters(learner.model)
    return sum(losses) / len(losses)


def _validate(
    learner: _Learner, engine: TorchEngine, pictures: Iterable[Labelled], epoch: int
) -> Evaluation:
    """The figures of ``edgeseg eval``; after a last step that diverged the loss has not seen it."""
    try:
        return score(engine, pictures)
    except NonFiniteOutput as error:
        raise _diverged(learner, epoch) from error


def _average(mean: torch.Tensor, weights: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
    """Running mean over a window that grows, so that a short training is not left behind."""
    decay = min(AVERAGE_DECAY, (1 + int(steps)) / (10 + int(steps)))
    return mean + (weights - mean) * (1 - decay)


def _native_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32: emulated, it is several times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _diverged(
    learner: _Learner, epoch: int, pictures: torch.Tensor | None = None
) -> NonFiniteOutput:
    rate = float(learner.schedule.get_last_lr()[0])
    if pictures is not None and not bool(torch.isfinite(pictures).all()):
        reason = "the augmented pictures hold NaN or infinity"
    elif not all(bool(torch.isfinite(p).all()) for p in learner.model.parameters()):
        reason = f"the last step at a learning rate of {rate:.2g} made the weights infinite"
    else:
        reason = f"the logits overflowed at a learning rate of {rate:.2g}"
    return NonFiniteOutput(
        f"the training diverged in epoch {epoch}: {reason}",
        mend="train again with a lower --learning-rate; the best checkpoint so far was kept",
    )


def _stats(
    epoch: int, loss: float, learner: _Learner, evaluation: Evaluation, begun: float
) -> EpochStats:
    return EpochStats(
        epoch=epoch,
        loss=loss,
        learning_rate=float(learner.schedule.get_last_lr()[0]),
        mean_iou=evaluation.mean_iou,
        pixel_accuracy=evaluation.pixel_accuracy,
        seconds=time.perf_counter() - begun,
    )


def _metrics(evaluation: Evaluation, epoch: int) -> dict[str, float]:
    return {
        "mean_iou": evaluation.mean_iou,
        "pixel_accuracy": evaluation.pixel_accuracy,
        "mean_accuracy": evaluation.mean_accuracy,
        "frequency_weighted_iou": evaluation.frequency_weighted_iou,
        "epoch": float(epoch),
    }


def _finish(
    checkpoint: Path, history: list[EpochStats], held_out: Iterable[Labelled], started: float
) -> TrainResult:
    """Plots and history beside the best checkpoint, which is read back as every user will."""
    engine = open_torch(checkpoint)
    curves, strip = checkpoint.with_name("curves.png"), checkpoint.with_name("predictions.png")
    epochs = [dataclasses.asdict(stats) for stats in history]
    write_atomic(checkpoint.with_name("history.json"), json.dumps(epochs, indent=2) + "\n")
    save_curves(curves, Curves([e.loss for e in history], [e.mean_iou for e in history]))
    save_predictions(strip, engine, list(itertools.islice(held_out, 64)))
    seconds = time.perf_counter() - started
    return TrainResult(checkpoint, engine.card, history, seconds, curves, strip)
