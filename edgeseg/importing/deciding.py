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
        return _head_of_labels(output, classes, config, size, path)
    enlarge = config.enlarge or "scores"
    background = classes.background
    if channels == count - 1:
        below = _left_out(output, count)
        if below is not None and channels > 1 and config.threshold is None and not output.ends:
            return Head(output, count, size, enlarge, background=below, rest=True)
        below = (background or 0) if below is None else below
        of_background = background is not None and below != background
        height = _height(output, config, of_background=of_background)
        return Head(output, count, size, enlarge, height, below)
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


def _head_of_labels(
    output: Output, classes: ClassMap, config: ImportConfig, size: tuple[int, int], path: Path
) -> Head:
    if config.threshold is not None or config.enlarge == "scores":
        raise UsageError(
            f"--threshold and --enlarge scores are for scores; {path} gives labels",
            hint="omit them, or name an output of scores with --output",
        )
    if output.channels not in (0, len(classes)):
        raise _unfitting(output, len(classes), path)
    if output.ends:
        require_ids(*output.ends, len(classes), path)
    background = classes.background
    if background is None and output.unsure and output.ends:
        raise MismatchedArtifact(
            f"{path}: {output.name!r} holds -1 or 255 where the network names no class, and none "
            "of the classes is the background",
            hint="name the class that such pixels become, e.g. --background "
            f"{classes.names[0]}, or export the labels without that step",
        )
    cleaned = output.unsure and background is not None
    head = Head(output, len(classes), size, "labels", background=background or 0)
    return replace(head, cleaned=cleaned)


def _left_out(output: Output, count: int) -> int | None:
    """The one class without a channel, where the graph shows which one that is."""
    left = set(range(count)) - set(output.classes)
    ordered = output.classes == tuple(sorted(output.classes))
    return left.pop() if output.classes and ordered and len(left) == 1 else None


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
    if output.kind == "labels":
        found = f"gives {channels} ids; expected an id for each class"
    else:
        found = (
            f"has {channels} channel{'s' * (channels != 1)}; expected a channel for each class, or "
            "for each but the background"
        )
    return MismatchedArtifact(
        f"{path}: {count} classes are named and {output.name!r} {found}",
        hint=(
            f"name {channels} classes with --classes, in the order of the network"
            if channels > 1
            else "name two classes with --classes, e.g. background,object"
        )
        + (", or another output with --output" if output.passed else ""),
    )


def _height(output: Output, config: ImportConfig, *, of_background: bool = False) -> float:
    """The threshold in the units of the output."""
    probability = PROBABILITY if config.threshold is None else config.threshold
    probability = 1 - probability if of_background else probability
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
        if head.cleaned:
            how += f"; {classes.names[head.background]} where the network names no class"
    elif head.rest:
        how = f"the most probable class; {classes.names[head.background]} has what the others leave"
    elif head.threshold is None:
        how = "the class of the highest score"
        if output.activation == "sigmoid":
            how += " (independent scores without a background: --background NAME sets a threshold)"
    else:
        probability = PROBABILITY if config.threshold is None else config.threshold
        what = "the class" if output.channels == 1 else "the strongest class"
        below = classes.names[head.background]
        if classes.background not in (None, head.background):
            below = classes.names[classes.background or 0]
            what += f" (what {below} leaves)"
        how = f"{what} where its probability exceeds {probability:g}, else {below}"
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
