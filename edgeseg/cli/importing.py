"""The command ``import``: from a network made elsewhere to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.options import Json, OptionalData, Overwrite, SplitName, height_width, one_of
from edgeseg.cli.output import finish


def import_(
    network: Annotated[Path, typer.Argument(help="ONNX network for semantic segmentation.")],
    classes: Annotated[
        str | None,
        typer.Option(help="Class names in the network's order: NAME,NAME,… or a file of them."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder to write model.onnx into; default: runs/NETWORK.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Input size, for networks that take any."),
    ] = None,
    color: Annotated[
        str | None, typer.Option(help="Order of channels: rgb, bgr or gray; default: rgb.")
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(help="Normalisation: imagenet, unit, none or MEAN/STD; default: imagenet."),
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="Resize rule: stretch or letterbox; default: stretch.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Output of the network to take, where it has several.")
    ] = None,
    enlarge: Annotated[
        str | None,
        typer.Option(help="What to enlarge to the input size: scores or labels; default: scores."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability above which a class counts, for sigmoid scores."),
    ] = None,
    data: OptionalData = None,
    split: SplitName = "val",
    background: Annotated[
        str | None,
        typer.Option(
            help="Class that overlays leave clear, or none; default: the class named background."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import a segmentation network made elsewhere, and check it against the original."""
    from edgeseg.console import progress_bar
    from edgeseg.importing import ImportConfig, import_network

    config = ImportConfig(
        classes=classes,
        size=None if size is None else height_width("--size", size),
        color=None if color is None else one_of("--color", color, ("rgb", "bgr", "gray")),
        normalise=normalise,
        resize=None if resize is None else one_of("--resize", resize, ("stretch", "letterbox")),
        output=output,
        enlarge=None if enlarge is None else one_of("--enlarge", enlarge, ("scores", "labels")),
        threshold=threshold,
        background=background,
        data=data,
        split=split,
    )
    made = import_network(network, run, config, overwrite=overwrite, track=progress_bar)
    if as_json:
        finish(True, made.to_dict())
        return
    finish(False, {**dict(made.lines), "written": str(made.path)})
