"""Options that several steps have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from edgeseg.options.base import Option

Data = Annotated[
    Path, Option("Data set: {train,val}/{images,masks|instances}, PASCAL VOC or Cityscapes.")
]
OptionalData = Annotated[
    Path | None, Option("Labelled pictures: {train,val}/{images,masks|instances}.")
]
SplitName = Annotated[str, Option("Split of --data to use: train, val or test.")]
Background = Annotated[
    str | None,
    Option("Class that overlays leave clear, or none; default: the class named background."),
]
Seed = Annotated[int, Option("Random seed.")]
Threads = Annotated[
    int | None, Field(ge=1), Option("Number of CPU threads; default: the runtime's choice.")
]
