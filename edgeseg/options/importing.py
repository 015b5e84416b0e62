"""Options of an import: what a user may state about a network made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from edgeseg.artifacts.card import Color, Resize
from edgeseg.options.base import Background, Option, OptionalData, Options, SplitName
from edgeseg.options.parsing import Size, height_width

Enlarge = Literal["scores", "labels"]


@dataclass(frozen=True)
class ImportConfig(Options):
    """What the user states; None is found out or assumed.

    Attributes:
        name: Name on the card; the file's where empty.
    """

    classes: Annotated[
        str | None, Option("Class names in the network's order: NAME,NAME,… or a file of them.")
    ] = None
    size: Annotated[
        Size | None,
        Option(
            "Input size, for networks that take any.", metavar="WIDTHxHEIGHT", parse=height_width
        ),
    ] = None
    color: Annotated[Color | None, Option("Order of channels; default: rgb.")] = None
    normalise: Annotated[
        str | None,
        Option(
            "Normalisation: imagenet, unit, none or MEAN/STD; default: imagenet.",
            suggestions=("imagenet", "unit", "none"),
        ),
    ] = None
    resize: Annotated[Resize | None, Option("Resize rule; default: stretch.")] = None
    output: Annotated[
        str | None, Option("Output of the network to take, where it has several.")
    ] = None
    enlarge: Annotated[
        Enlarge | None, Option("What to enlarge to the input size; default: scores.")
    ] = None
    threshold: Annotated[
        float | None,
        Field(gt=0, lt=1),
        Option("Probability above which a class counts, for sigmoid scores."),
    ] = None
    background: Background = None
    data: OptionalData = None
    split: SplitName = "val"
    name: str = ""
