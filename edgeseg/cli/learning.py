"""``train`` and ``eval``: from labelled pictures to a network whose accuracy is known."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.options import (
    Data,
    Json,
    SplitName,
    Threads,
    height_width,
    one_of,
)
from edgeseg.console import progress_bar
from edgeseg.output import finish

log = logging.getLogger(__name__)

AUGMENT = ("upright", "any", "none")


def train(
    data: Data,
    arch: Annotated[str, typer.Option(help="unet-lite or fcn8s.")] = "unet-lite",
    run: Annotated[
        Path | None, typer.Option(help="Folder for the run; default runs/ARCH-DATE.")
    ] = None,
    size: Annotated[str, typer.Option(help="Network input, WIDTHxHEIGHT.")] = "256x256",
    resize: Annotated[str, typer.Option(help="How pictures meet it: stretch, letterbox.")] = (
        "stretch"
    ),
    color: Annotated[str, typer.Option(help="What the network sees: rgb, bgr, gray.")] = "rgb",
    augment: Annotated[
        str, typer.Option(help="Vary pictures: upright (mirrored at most), any way round, none.")
    ] = "upright",
    crop: Annotated[
        str | None, typer.Option(help="Train on random parts of this size, WIDTHxHEIGHT.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    learning_rate: Annotated[float, typer.Option(min=0)] = 3e-3,
    width: Annotated[int | None, typer.Option(help="unet-lite: channels of level 1.")] = None,
    depth: Annotated[int | None, typer.Option(help="unet-lite: number of poolings.")] = None,
    stem_stride: Annotated[
        int | None, typer.Option(help="unet-lite: 2 is about 3x faster, masks 2x coarser.")
    ] = None,
    fc_width: Annotated[int | None, typer.Option(help="fcn8s: channels of fc6, fc7.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="fcn8s: VGG16 convolutions, .safetensors.")
    ] = None,
    seed: int = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Train a network on labelled pictures."""
    from edgeseg.runs import prepare_run
    from edgeseg.training.loop import EpochStats, TrainConfig
    from edgeseg.training.loop import train as train_network

    options = {"width": width, "depth": depth, "stem_stride": stem_stride, "fc_width": fc_width}
    config = TrainConfig(
        data=data,
        run=prepare_run(run, arch, overwrite=overwrite),
        arch=arch,
        options={key: value for key, value in options.items() if value is not None},
        size=height_width("--size", size),
        color=one_of("--color", color, ("rgb", "bgr", "gray")),
        orientation=None if augment == "none" else one_of("--augment", augment, AUGMENT),
        crop=None if crop is None else height_width("--crop", crop),
        resize=one_of("--resize", resize, ("stretch", "letterbox")),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weights=weights,
        seed=seed,
    )

    def show(epoch: EpochStats) -> None:
        log.info(
            "epoch %*d/%d  loss %.4f  val mean IoU %.4f  %.1f s",
            *(len(str(epochs)), epoch.epoch, epochs),
            *(epoch.loss, epoch.mean_iou, epoch.seconds),
        )

    result = train_network(config, track=progress_bar, on_epoch=show)
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


def evaluate(
    data: Data,
    artifact: Annotated[
        Path | None, typer.Argument(help="Checkpoint, ONNX or run folder; default: newest run.")
    ] = None,
    split: SplitName = "val",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy on labelled pictures, the same way for every kind of artefact."""
    from edgeseg.data.folders import read_split
    from edgeseg.evaluation import evaluate as measure
    from edgeseg.loading import load
    from edgeseg.runs import CHECKPOINT, RUNNABLE, resolve

    path = resolve(artifact, (*RUNNABLE, CHECKPOINT), "edgeseg train --data DIR")
    labelled = read_split(data, split)
    with load(path, threads=threads) as engine:
        result = measure(engine, labelled, track=progress_bar)
    finish(as_json, {"artifact": str(path), **result.to_dict()})
