"""Options of the video clips of alerts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from edgeseg.options.base import Option, Options
from edgeseg.options.parsing import byte_size, size_text


@dataclass(frozen=True, kw_only=True)
class ClipOptions(Options):
    """Length of clips, and how many are kept.

    ``clip_before`` and ``clip_after`` are seconds before and after an alert. ``clip_memory`` is
    the most memory, in bytes, that the pictures or packets of one source may take while they wait
    for an alert. ``clip_keep`` is the number of clips of a source to keep, those of earlier runs
    included.
    """

    clip_before: Annotated[
        float, Field(ge=0, le=600), Option("Seconds before an alert that its clip shows.")
    ] = 5.0
    clip_after: Annotated[
        float, Field(ge=0, le=600), Option("Seconds after an alert that its clip shows.")
    ] = 5.0
    clip_memory: Annotated[
        int,
        Field(ge=1),
        Option(
            "Memory for the frames of one source that wait for an alert, as JPEG or packets.",
            metavar="SIZE",
            parse=byte_size,
            format=size_text,
        ),
    ] = 128_000_000
    clip_keep: Annotated[
        int | None,
        Field(ge=1),
        Option("Number of clips of a source to keep, the newest of all runs."),
    ] = None
