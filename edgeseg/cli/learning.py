"""The commands ``train`` and ``eval``: train a network and measure its accuracy."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.options import (
    Data,
    Json,
    MaxPixels,
    Overwrite,
    SplitName,
    Threads,
    allow_pixels,
    height_width,
    one_of,
)
from edgeseg.cli.output import finish
from edgeseg.console import progress_bar
from edgeseg.errors import UsageError

log = logging.getLogger(__name__)


def train(
    context: typer.Context,
    data: Data,
    arch: Annotated[
        str, typer.Option(help="Architecture: unet-lite, unet, fcn32s, fcn16s or fcn8s.")
    ] = "unet-lite",
    run: Annotated[Path | None, typer.Option(help="Run folder; default: runs/ARCH-DATE.")] = None,
    size: Annotated[str, typer.Option(help="Input size of the network, WIDTHxHEIGHT.")] = "256x256",
    resize: Annotated[str, typer.Option(help="Fit to that size: stretch, letterbox.")] = (
        "stretch"
    ),
    reduce: Annotated[
        str, typer.Option(help="Downsampling: bilinear, or area, which preserves thin structures.")
    ] = "bilinear",
    color: Annotated[str, typer.Option(help="Input colour: rgb, bgr, gray.")] = "rgb",
    background: Annotated[
        str | None,
        typer.Option(
            help="Class that overlays leave clear, or none; default: the class named background."
        ),
    ] = None,
    augment: Annotated[
        str, typer.Option(help="Augmentation: upright (mirror), any (mirror and rotate), none.")
    ] = "upright",
    crop: Annotated[
        str | None, typer.Option(help="Train on random crops of this size, WIDTHxHEIGHT.")
    ] = None,
    elastic: Annotated[
        bool, typer.Option("--elastic", help="Apply smooth elastic deformations.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 60,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size over all processes.")] = 8,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1, help="Forward passes per optimiser step, for batches that exceed memory."
        ),
    ] = 1,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 3e-3,
    schedule: Annotated[
        str, typer.Option(help="Learning-rate schedule: one-cycle, poly, cosine.")
    ] = "one-cycle",
    clip_norm: Annotated[float | None, typer.Option(help="Clip gradients to this L2 norm.")] = None,
    autocast: Annotated[
        str, typer.Option(help="Mixed precision of the forward pass: auto, off, bf16, fp16.")
    ] = "auto",
    class_weights: Annotated[
        str, typer.Option(help="Class weights: none, or median-frequency to favour rare classes.")
    ] = "none",
    dice: Annotated[float, typer.Option(min=0, help="Weight of the Dice loss.")] = 1.0,
    border_weight: Annotated[
        float, typer.Option(min=0, help="Weight of borders between objects; 10 in the U-Net paper.")
    ] = 0.0,
    border_sigma: Annotated[float, typer.Option(help="Width of these borders, in pixels.")] = 5.0,
    touching: Annotated[
        str, typer.Option(help="Labels of touching objects: merged, with a gap, or a boundary.")
    ] = "merged",
    width: Annotated[
        int | None, typer.Option(help="unet, unet-lite: channels of the first level.")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="unet, unet-lite: number of poolings.")] = None,
    stem_stride: Annotated[
        int | None, typer.Option(help="unet-lite: 2 is about 3x faster, masks 2x coarser.")
    ] = None,
    fc_width: Annotated[int | None, typer.Option(help="fcn…: channels of fc6 and fc7.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Additional network option, NAME=VALUE; repeatable."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Initial weights: VGG16, or a checkpoint of another network."),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="fcn…: imagenet, for the VGG16 weights of torchvision.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    threads: Threads = None,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard event files.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the training in --run.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing run.")] = False,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """Train a network on labelled pictures.

    To train with several processes: torchrun --nproc-per-node 2 -m -- edgeseg train …
    """
    allow_pixels(max_pixels)  # before the imports, which bring OpenCV

    from edgeseg.data.augment import Augmentation
    from edgeseg.runs import RUNS, prepare_run
    from edgeseg.training import distributed
    from edgeseg.training.loop import train as train_network
    from edgeseg.training.recipe import Recipe, TrainConfig
    from edgeseg.training.state import EpochStats

    options = {"width": width, "depth": depth, "stem_stride": stem_stride, "fc_width": fc_width}
    one_of("--augment", augment, ("upright", "any", "none"))
    part = None if crop is None else height_width("--crop", crop)
    if augment == "none" and (part or elastic):
        raise UsageError("--crop and --elastic vary pictures, and --augment none leaves them alone")
    varied = None
    if augment != "none":
        varied = Augmentation("any" if augment == "any" else "upright", crop=part, elastic=elastic)
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        schedule=one_of("--schedule", schedule, ("one-cycle", "poly", "cosine")),
        autocast=one_of("--autocast", autocast, ("auto", "off", "bf16", "fp16")),
        class_weights=one_of("--class-weights", class_weights, ("none", "median-frequency")),
        dice=dice,
        border_weight=border_weight,
        border_sigma=border_sigma,
        touching=one_of("--touching", touching, ("merged", "gap", "boundary")),
        augmentation=varied,
        clip_norm=clip_norm,
    )
    first = distributed.rank() == 0
    if first:
        prepared = prepare_run(run, arch, overwrite=overwrite, resume=resume)
        run = context.with_resource(prepared)
    config = TrainConfig(
        data=data,
        # Only the first process writes; for the others the folder already exists.
        run=run or RUNS / arch,
        arch=arch,
        options={key: value for key, value in options.items() if value is not None}
        | _network_options(arch, option or []),
        size=height_width("--size", size),
        color=one_of("--color", color, ("rgb", "bgr", "gray")),
        resize=one_of("--resize", resize, ("stretch", "letterbox")),
        reduce=one_of("--reduce", reduce, ("bilinear", "area")),
        background=background,
        recipe=recipe,
        weights=weights,
        pretrained=None
        if pretrained is None
        else one_of("--pretrained", pretrained, ("imagenet",)),
        resume=resume,
        tensorboard=tensorboard,
        seed=seed,
        threads=threads,
    )

    def show(epoch: EpochStats) -> None:
        log.info(
            "epoch %*d/%d  loss %.4f  val mean IoU %.4f  %.1f s",
            *(len(str(epochs)), epoch.epoch, epochs),
            *(epoch.loss, epoch.mean_iou, epoch.seconds),
        )

    result = train_network(config, track=progress_bar, on_epoch=show)
    if not first:
        return
    finish(
        as_json,
        {
            "checkpoint": str(result.checkpoint),
            "val_mean_iou": result.card.metrics["mean_iou"],
            "epochs": len(result.history),
            "seconds": round(result.seconds, 1),
            "curves": str(result.curves),
            "predictions": str(result.strip),
        },
    )


def _network_options(arch: str, texts: list[str]) -> dict[str, bool | int | float | str]:
    """Parse ``NAME=VALUE`` texts into values of the types that the architecture expects."""
    from pydantic import TypeAdapter, ValidationError

    from edgeseg.models import default_options

    known = default_options(arch)
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise UsageError(
                f"--option {text}: {arch} has the options "
                + ", ".join(f"{key}={default}" for key, default in known.items())
            )
        kind = type(known[name])
        try:
            options[name] = TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            raise UsageError(f"--option {text}: {name} is of type {kind.__name__}") from error
    return options


def evaluate(
    data: Data,
    artifact: Annotated[
        Path | None,
        typer.Argument(help="Checkpoint, network or run folder; default: the newest run."),
    ] = None,
    split: SplitName = "val",
    confusion: Annotated[
        Path | None, typer.Option(help="Plot the confusion matrix to this .png file.")
    ] = None,
    max_pixels: MaxPixels = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure the accuracy of an artefact on labelled pictures.

    If the data set has instance maps, individual objects are matched and counted too.
    """
    allow_pixels(max_pixels)  # before the imports, which bring OpenCV

    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.data.folders import read_split
    from edgeseg.evaluation import evaluate as measure
    from edgeseg.loading import load
    from edgeseg.runs import CHECKPOINT, RUNNABLE, resolve

    if confusion:
        from edgeseg.report.confusion import check_suffix, save_confusion

        check_suffix(confusion)
    path = resolve(artifact, (*RUNNABLE, CHECKPOINT), "edgeseg train --data DIR")
    if confusion:
        refuse_to_replace(confusion, overwrite=overwrite, inputs=[path, data])
    labelled = read_split(data, split)
    with load(path, threads=threads) as engine:
        result = measure(engine, labelled, track=progress_bar)
    if confusion:
        save_confusion(confusion, result.confusion, engine.card.classes)
    drawn = str(confusion) if confusion else None
    finish(as_json, {"artifact": str(path), **result.to_dict(), "confusion": drawn})
