"""Decide how an output becomes labels, and what is assumed where nobody says it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap
from edgeseg.errors import MismatchedArtifact, UsageError
from edgeseg.importing.heads import Head
from edgeseg.importing.outputs import Output
from edgeseg.options.importing import ImportConfig

PROBABILITY = 0.5


def decide_head(
    output: Output, classes: ClassMap, config: ImportConfig, size: tuple[int, int], path: Path
) -> Head:
    """Decide how ``output`` becomes labels of ``classes``.

    Raises:
        MismatchedArtifact: The number of channels does not fit that of the classes.
        UsageError: An option does not fit the output.
    """
    count, channels = len(classes), output.channels
    if output.kind == "labels":
        if config.threshold is not None or config.enlarge == "scores":
            raise UsageError(
                f"--threshold and --enlarge scores are for scores; {path} gives labels",
                hint="omit them, or name an output of scores with --output",
            )
        if channels not in (0, count):
            raise _unfitting(output, count, path)
        if output.ends:
            require_ids(*output.ends, count, path)
        return Head(output, count, size, enlarge="labels")
    enlarge = config.enlarge or "scores"
    background = classes.background
    below = 0 if background is None else background
    if channels == count - 1:
        return Head(output, count, size, enlarge, _height(output, config), below)
    if channels != count:
        raise _unfitting(output, count, path)
    independent = output.activation == "sigmoid" or config.threshold is not None
    if not independent or background is None:
        if config.threshold is not None:
            raise UsageError(
                "--threshold needs a class for pixels below it, and none is the background",
                hint=f"--background {classes.names[0]}",
            )
        return Head(output, count, size, enlarge)
    return Head(output, count, size, enlarge, _height(output, config), background, drawn=True)


def require_ids(least: float, most: float, count: int, path: Path) -> None:
    """Raise MismatchedArtifact if labels from ``least`` to ``most`` are not those of classes."""
    if not 0 <= least <= most < count:
        raise MismatchedArtifact(
            f"{path}: expected labels 0…{count - 1} for {count} classes, found {least:g}…{most:g}",
            hint="name all of its classes with --classes; where it gives grey levels instead of "
            "class ids, export it without that step",
        )


def told_by_range(output: Output, raws: Iterable[NDArray[Any]]) -> Output:
    """Recognise probabilities by their range, where the graph does not show what made them.

    Args:
        output: Scores of independent classes without a known activation.
        raws: The output for several pictures.
    """
    inside = all(raw.min() >= 0 and raw.max() <= 1 for raw in raws)
    return replace(output, activation="sigmoid") if inside else output


def _unfitting(output: Output, count: int, path: Path) -> MismatchedArtifact:
    channels = output.channels
    return MismatchedArtifact(
        f"{path}: {count} classes are named and {output.name!r} has {channels} channel"
        f"{'s' * (channels != 1)}; expected a channel for each class, or for each but the "
        "background",
        hint=(
            f"name {channels} classes with --classes, in the order of the channels"
            if channels > 1
            else "name two classes with --classes, e.g. background,object"
        )
        + (", or another output with --output" if output.passed else ""),
    )


def _height(output: Output, config: ImportConfig) -> float:
    """The threshold in the units of the output."""
    probability = PROBABILITY if config.threshold is None else config.threshold
    if output.ends:
        low, high = output.ends
        return low + probability * (high - low)
    if output.activation == "none":
        return math.log(probability / (1 - probability))
    return math.log(probability) if output.activation == "log-softmax" else probability


def head_text(head: Head, classes: ClassMap, config: ImportConfig) -> str:
    """Describe in words how labels are made."""
    output = head.output
    if output.kind == "labels":
        how = "taken as they are"
    elif head.threshold is None:
        how = "the class of the highest score"
        if output.activation == "sigmoid":
            how += " (independent scores without a background: --background NAME sets a threshold)"
    else:
        probability = PROBABILITY if config.threshold is None else config.threshold
        what = "the class" if output.channels == 1 else "the strongest class"
        how = (
            f"{what} where its probability exceeds {probability:g}, else "
            f"{classes.names[head.background]}"
        )
    return f"{how}{_enlarged(head)}"


def _enlarged(head: Head) -> str:
    if not head.resized:
        return ""
    sizes = f"from {head.output.size[1]}x{head.output.size[0]} to {head.size[1]}x{head.size[0]}"
    if head.output.kind == "labels":
        return f", resized {sizes}"
    other = "labels" if head.enlarge == "scores" else "scores"
    when = "before" if head.enlarge == "scores" else "after"
    return f"; {head.enlarge} resized {sizes} {when} the choice (--enlarge {other} for the other)"
