"""Options of a conversion of labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgeseg.options.base import Option, Options, Seed

LabelFormat = Literal["auto", "coco", "labelme", "cvat", "yolo", "colors"]


@dataclass(frozen=True)
class ConvertConfig(Options):
    """Format of the labels, splits and places of files."""

    from_: Annotated[
        LabelFormat, Option("Format of the labels; auto tells it from the files.", names="--from")
    ] = "auto"
    val: Annotated[
        float,
        Field(gt=0, lt=1),
        Option("Share of the pictures for val, where the source has no train and val."),
    ] = 0.2
    images: Annotated[
        Path | None, Option("Folder of the pictures; default: in and below the source.")
    ] = None
    palette: Annotated[
        Path | None,
        Option(
            "Names and colours of colour-coded masks, .json or text; default: label_colors.txt, "
            "class_dict.csv or labelmap.txt."
        ),
    ] = None
    ignore: Annotated[
        tuple[str, ...], Option("Class whose pixels are written as not labelled (255); repeatable.")
    ] = ()
    seed: Seed = 0
