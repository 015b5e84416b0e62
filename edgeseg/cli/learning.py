"""The commands ``train`` and ``eval``: train a network and measure its accuracy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgeseg.cli.flattening import flat
from edgeseg.cli.openmp import spin_briefly
from edgeseg.cli.options import Json, MaxPixels, Overwrite, allow_pixels
from edgeseg.cli.output import finish
from edgeseg.console import progress_bar
from edgeseg.errors import UsageError
from edgeseg.options.base import Data, Option, SplitName, Threads, settings, words
from edgeseg.options.training import RECIPES, Augmentation, Recipe, RecipeName, TrainConfig

logger = logging.getLogger(__name__)


def _defaults(recipe: Recipe) -> dict[str, Any]:
    """Return the options that make a recipe, for those that are not given."""
    assert recipe.augmentation is not None
    found: dict[str, Any] = {"augment": recipe.augmentation.orientation}
    for options in (recipe, recipe.augmentation):
        for name, setting in settings(type(options)).items():
            value = getattr(options, name)
            if setting.option is not None and value != setting.default:
                found[name] = value if isinstance(value, bool) else setting.words(value)[1]
    return found


def _use_recipe(context: typer.Context, name: RecipeName | None) -> RecipeName | None:
    if name is not None:
        context.default_map = {**(context.default_map or {}), **_defaults(RECIPES[name])}
    return name


def _recipe_texts() -> str:
    texts = (
        f"{name}: --augment {recipe.augmentation.orientation} {' '.join(words(recipe))}"
        for name, recipe in RECIPES.items()
        if recipe.augmentation is not None
    )
    return "; ".join(texts)


@flat
def train(
    context: typer.Context,
    configure: Callable[..., TrainConfig],
    recipe: Recipe,
    augmentation: Augmentation,
    augment: Annotated[
        Literal["upright", "any", "none"],
        Option("Augmentation: upright (mirror), any (mirror and rotate), none."),
    ] = "upright",
    named: Annotated[  # noqa: ARG001 - its callback uses it
        RecipeName | None,
        typer.Option(
            "--recipe",
            help=f"Defaults of other options. {_recipe_texts()}.",
            callback=_use_recipe,
            is_eager=True,
        ),
    ] = None,
    run: Annotated[Path | None, Option("Run folder; default: runs/ARCH-DATE.")] = None,
    width: Annotated[int | None, Option("unet, unet-lite: channels of the first level.")] = None,
    depth: Annotated[int | None, Option("unet, unet-lite: number of poolings.")] = None,
    stem_stride: Annotated[
        int | None, Option("unet-lite: 2 is about 3x faster, masks 2x coarser.")
    ] = None,
    fc_width: Annotated[int | None, Option("fcn…: channels of fc6 and fc7.")] = None,
    option: Annotated[
        tuple[str, ...], Option("Additional network option, NAME=VALUE; repeatable.")
    ] = (),
    overwrite: Annotated[bool, Option("Replace an existing run.")] = False,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """Train a network on labelled pictures.

    To train with several processes: torchrun --nproc-per-node 2 -m -- edgeseg train …
    """
    allow_pixels(max_pixels)  # before the imports, which bring OpenCV
    spin_briefly()  # before PyTorch, whose OpenMP reads it once

    from edgeseg.cli.allocator import keep_freed_memory
    from edgeseg.runs import RUNS, prepare_run
    from edgeseg.training import distributed
    from edgeseg.training.loop import train as train_network
    from edgeseg.training.state import EpochStats

    if augment == "none" and augmentation not in (Augmentation(), Augmentation(scale=None)):
        raise UsageError(
            "--crop, --elastic and --scale vary pictures, and --augment none leaves them alone",
            hint="omit --augment none, or omit the others",
        )
    varied = None if augment == "none" else replace(augmentation, orientation=augment)
    config = configure(run=run or RUNS, recipe=replace(recipe, augmentation=varied))
    sizes = {"width": width, "depth": depth, "stem_stride": stem_stride, "fc_width": fc_width}
    options: dict[str, bool | int | float | str] = {
        key: value for key, value in sizes.items() if value is not None
    }
    extra = _network_options(config.arch, option)
    for name in options.keys() & extra.keys():
        raise UsageError(
            f"--{name.replace('_', '-')} and --option {name}=… set the same; give one of them"
        )
    options |= extra
    keep_freed_memory()
    first = distributed.rank() == 0
    if first:
        prepared = prepare_run(run, config.arch, overwrite=overwrite, resume=config.resume)
        run = context.with_resource(prepared)
    # Only the first process writes; for the others the folder already exists.
    config = replace(config, run=run or RUNS / config.arch, options=options)

    def show(epoch: EpochStats) -> None:
        logger.info(
            "epoch %*d/%d  loss %.4f  val mean IoU %.4f  %.1f s",
            *(len(str(recipe.epochs)), epoch.epoch, recipe.epochs),
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


def _network_options(arch: str, texts: tuple[str, ...]) -> dict[str, bool | int | float | str]:
    """Parse ``NAME=VALUE`` texts into values of the types that the architecture expects."""
    from pydantic import TypeAdapter, ValidationError

    from edgeseg.models import default_options

    known = default_options(arch)
    options: dict[str, bool | int | float | str] = {}
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


@flat
def evaluate(
    data: Data,
    artifact: Annotated[
        Path | None,
        typer.Argument(help="Checkpoint, network or run folder; default: the newest run."),
    ] = None,
    split: SplitName = "val",
    confusion: Annotated[
        Path | None, Option("Plot the confusion matrix to this .png file.")
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

    from edgeseg.artifacts.figures import require_png
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.data.folders import read_split
    from edgeseg.evaluation import evaluate as measure
    from edgeseg.loading import load
    from edgeseg.runs import CHECKPOINT, RUNNABLE, resolve

    if confusion:
        from edgeseg.report.confusion import save_confusion

        require_png(confusion, "a confusion matrix")
    path = resolve(artifact, (*RUNNABLE, CHECKPOINT), "edgeseg train --data DIR", bundled=True)
    if confusion:
        refuse_to_replace(confusion, overwrite=overwrite, inputs=[path, data])
    labelled = read_split(data, split)
    with load(path, threads=threads) as engine:
        result = measure(engine, labelled, track=progress_bar)
    if confusion:
        save_confusion(confusion, result.confusion, engine.card.classes)
    drawn = str(confusion) if confusion else None
    finish(as_json, {"artifact": str(path), **result.to_dict(), "confusion": drawn})
