"""Prepare a training: load the data, make the card and build the network."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from edgeseg import __version__
from edgeseg.artifacts.card import ClassMap, Color, InputSpec, ModelCard
from edgeseg.artifacts.documents import first_problem, plural
from edgeseg.console import Track
from edgeseg.data.folders import Split, read_split
from edgeseg.data.instances import with_boundary
from edgeseg.data.loader import MEMORY_LIMIT, Example
from edgeseg.data.unlabelled import thinned
from edgeseg.errors import DatasetError, SourceError, UsageError
from edgeseg.evaluation import Labelled, numbered_for, read
from edgeseg.models import build, default_options
from edgeseg.models.encoders import statistics as encoder_statistics
from edgeseg.models.mirror import same_size
from edgeseg.models.pretrained import load_imagenet, load_pretrained
from edgeseg.options.training import TrainConfig
from edgeseg.runs import CHECKPOINT, located
from edgeseg.sources.capture import open_frames
from edgeseg.sources.frames import frames_of
from edgeseg.sources.spec import parse_source
from edgeseg.training.predictor import TorchEngine

logger = logging.getLogger(__name__)


def read_splits(config: TrainConfig) -> tuple[Split, Split]:
    """Read the ``train`` and ``val`` splits.

    Raises:
        DatasetError: There is only one split, or the recipe needs object maps and a picture of
            ``train`` has none.
        UsageError: A boundary class is requested, but the data set has class masks.
        ArtifactError: See :func:`edgeseg.data.folders.read_split`.
    """
    training, validation = (read_split(config.data, name) for name in ("train", "val"))
    if not training.name:
        raise DatasetError(
            f"{config.data}: expected the folders train and val, found one split without a name",
            hint="set some pictures aside: DIR/train/{images,masks} and DIR/val/{images,masks}",
        )
    missing = [sample.image for sample in training if sample.instances is None]
    if missing and config.recipe.objects.needed:
        raise DatasetError(
            f"{missing[0]}: expected a map of its objects, which border weights and parting "
            "objects that touch need, found only a mask of classes",
            hint="put PNGs with one id an object into train/instances/, or omit both",
        )
    if config.recipe.touching == "boundary" and any(s.mask for s in (*training, *validation)):
        raise UsageError(
            f"{config.data}: a boundary class is made of objects, but masks/ takes precedence here",
            hint="use --touching gap, or remove masks/",
        )
    return training, validation


def check_batch_norm(config: TrainConfig, card: ModelCard, smallest: int) -> None:
    """Raise UsageError if a batch of ``smallest`` pictures leaves BatchNorm a single value.

    PyTorch would raise an error in the middle of the training, as the variance would be 0.
    """
    with torch.device("meta"):
        network = same_size(
            build(card.arch, len(card.classes), card.input.channels, **card.options)
        )
        pictures = torch.empty(smallest, card.input.channels, *(config.crop or config.size))
    try:
        network.train()(pictures)
    except ValueError as error:
        raise UsageError(
            f"--batch-size, --accumulate and the number of pictures leave a batch of "
            f"{plural(smallest, 'picture')}, whose map is 1x1 at the deepest level: BatchNorm "
            "needs more than one value a channel",
            hint="take a larger --size (or --crop) or a smaller --depth; with more than one "
            "picture, a --batch-size and --accumulate that leave no picture alone",
        ) from error


def make_card(config: TrainConfig, classes: ClassMap) -> ModelCard:
    """Make the card of the network to train.

    Raises:
        UsageError: The architecture, its size or the background is not valid.
        RuntimeMissing: An encoder is requested, but timm is not installed.
    """
    if config.recipe.touching == "boundary":
        classes = with_boundary(classes)
    if config.background is not None:
        classes = classes.with_background(config.background)
    options = default_options(config.arch) | config.options
    height, width = config.size
    try:
        spec = InputSpec.model_validate(
            {
                "height": height,
                "width": width,
                "color": config.color,
                "resize": config.resize,
                "reduce": config.reduce,
                "tiles": config.tiles,
            }
            | _statistics(config.color, str(options.get("encoder", "none")))
        )
    except ValidationError as error:
        raise UsageError(f"--size {width}x{height}: {first_problem(error)}") from error
    with torch.device("meta"):
        _check_size(config, build(config.arch, len(classes), spec.channels, **config.options))
    return ModelCard(
        name=config.run.resolve().name,
        arch=config.arch,
        options=options,
        classes=classes,
        input=spec,
        dataset=config.data.resolve().name,
        edgeseg_version=__version__,
    )


def _check_size(config: TrainConfig, network: nn.Module) -> None:
    smallest = 1 if getattr(network, "margin", 0) else int(network.stride)  # type: ignore[arg-type]
    height, width = config.crop or config.size
    if min(height, width) < smallest:
        option = "--size" if config.crop is None else "--crop"
        raise UsageError(
            f"{option} {width}x{height}: this network expects {smallest} pixels a side or more",
            hint=f"train with {option} {max(width, smallest)}x{max(height, smallest)} or larger",
        )


def _statistics(color: Color, encoder: str) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of the input, where they are not those of ImageNet's colours."""
    if encoder != "none":
        return encoder_statistics(encoder, 1 if color == "gray" else 3)
    return {"mean": (0.449,), "std": (0.226,)} if color == "gray" else {}


def fresh_network(config: TrainConfig, card: ModelCard) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the card's network on the CPU; return it and the names of its initial weights."""
    model = build(card.arch, len(card.classes), card.input.channels, **card.options)
    copied: tuple[str, ...] = ()
    if config.weights is not None:
        copied = load_pretrained(model, _weights_file(config.weights))
        count = (len(copied), len(model.state_dict()))
        logger.info("took %d of %d tensors from %s", *count, config.weights)
    elif config.pretrained is not None:
        copied = load_imagenet(model)
        logger.info("took %d tensors of ImageNet weights", len(copied))
    if config.recipe.pretrained_rate != 1 and not copied:
        logger.warning(
            "--pretrained-rate %g changes nothing, since no layer has initial weights; "
            "give them with --weights or --pretrained",
            config.recipe.pretrained_rate,
        )
    return model, copied


def _weights_file(path: Path) -> Path:
    """Return the checkpoint of a run folder, or the file itself."""
    there = located(path)
    if not there.is_dir():
        return there
    if not (there / CHECKPOINT).is_file():
        raise UsageError(
            f"{path}: expected initial weights, found no {CHECKPOINT} there",
            hint="name a run of `edgeseg train`, or a file; a network without checkpoint can be a "
            "--teacher",
        )
    return there / CHECKPOINT


def read_unlabelled(config: TrainConfig, card: ModelCard, track: Track) -> list[Example]:
    """Read the unlabelled pictures; none if there is no source of them.

    Raises:
        SourceError: The folder or video cannot be opened, or gives no frame.
        UsageError: The classes leave no mask value for unlabelled pixels.
    """
    source = config.teaching.unlabelled
    if source is None:
        return []
    opened = open_frames(parse_source(source))
    with contextlib.closing(opened):
        frames = track(frames_of(opened), "read unlabelled pictures", opened.declared)
        kept = thinned(frames, card.classes, card.input)
    if not kept:
        raise SourceError(f"{source}: expected unlabelled pictures, found none that can be read")
    logger.info("%s from %s", plural(len(kept), "unlabelled picture"), source)
    return kept


def held_out(engine: TorchEngine, split: Split) -> Iterable[Labelled]:
    """Return the validation pictures, decoded once if they fit in memory, else on each pass."""
    split = numbered_for(engine, split)
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
