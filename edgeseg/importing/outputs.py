"""The output of a network made elsewhere that says which class each pixel has, and in which form.

Scores (logits, softmax, sigmoid) of any stride, channels first or last, or labels of any integer
type, with or without a channel.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from onnx import ModelProto, TensorProto

from edgeseg.errors import MismatchedArtifact, UsageError
from edgeseg.importing.values import Source, Tail

MAX_CLASSES = 255
"""A uint8 label map has no more: 255 is the value to ignore."""

UNSURE = (-1, 255)
"""Ids by which networks say that they name no class, as masks do."""

Activation = Literal["none", "softmax", "log-softmax", "sigmoid"]

# Of the types that the reader leaves.
_LABELS = (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)
_ACTIVATIONS: dict[str, Activation] = {
    "Softmax": "softmax",
    "LogSoftmax": "log-softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
}
# In the order of how sure each is; the whole name or a part of it.
_MAIN = ("logits", "semantic", "out", "output", "pred", "seg", "mask", "labels", "scores")
_SIDE = ("aux", "deep", "edge", "boundary", "feature", "hidden", "embed", "attention")
_PANOPTIC = ("class_queries_logits", "masks_queries_logits", "pred_masks", "query")
_DETECTION = ("boxes", "bbox", "dets", "detection", "num_detections")
_MOST_SKEWED = math.log(1.5)
_LEAST = 4  # pixels; smaller than this no output is a map of the picture


@dataclass(frozen=True)
class Output:
    """The output that labels come from.

    Attributes:
        name: Name of the tensor.
        kind: ``scores``, one number per class and pixel, or ``labels``, class ids.
        axes: Order of the axes without those of size 1 in front, e.g. ``chw``, ``hwc`` or ``hw``.
        channels: Number of score channels; of labels that of the classes they tell apart, 0 if
            unknown.
        size: (height, width) of the output in pixels.
        shape: Shape of the tensor.
        activation: What the scores went through last.
        classes: Class of each channel, where the graph shows that it leaves out some; of one
            channel 0 or 1.
        passed: Names of the other outputs, which are left out.
        ends: For scores, what stands for the probabilities 0 and 1; for labels, the least and the
            largest class that the graph can give, None if unknown.
        unsure: Whether labels may be one of :data:`UNSURE`, too.
        shrunk: Name of the output that shrinks these scores at last; empty for an output itself.
    """

    name: str
    kind: Literal["scores", "labels"]
    axes: Literal["chw", "hwc", "hw"]
    channels: int
    size: tuple[int, int]
    shape: tuple[int, ...]
    activation: Activation = "none"
    classes: tuple[int, ...] = ()
    passed: tuple[str, ...] = ()
    ends: tuple[float, float] | None = None
    unsure: bool = False
    shrunk: str = ""

    def __str__(self) -> str:
        height, width = self.size
        if self.kind == "labels":
            return f"{self.name!r}, labels of {width}x{height}"
        form = {"none": "logits"}.get(self.activation, f"{self.activation} scores")
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        before = f", before {self.shrunk!r} shrinks them" if self.shrunk else ""
        return f"{self.name!r}, {form} in {channels} of {width}x{height}{before}"


def find_output(
    model: ModelProto,
    path: Path,
    size: tuple[int, int],
    *,
    name: str | None = None,
    classes: int | None = None,
    inner: Container[str] = (),
) -> Output:
    """Choose the output that labels come from, by shape and then by name.

    Scores that the graph only shrinks at last are taken before that, unless ``name`` asks for the
    output: their borders could not be recovered by enlarging them again.

    Args:
        model: Graph of fixed shapes.
        path: The file, for messages.
        size: (height, width) of the picture.
        name: Output that the user asked for.
        classes: Number of classes, where it is known.
        inner: Names of the tensors within the graph that may be taken, too.

    Raises:
        UsageError: No output has that name.
        MismatchedArtifact: No output is a map of classes, or it has more than 255 of them.
    """
    tail, names = Tail(model), [value.name for value in model.graph.output]
    if name is not None and name not in names:
        raise UsageError(
            f"--output {name}: {path} has no such output, but {', '.join(names)}",
            hint=f"edgeseg import {path} --output {names[0]}",
        )
    _refuse_others(names, tail, path)
    asked = [name] if name is not None else names
    found = [output for each in asked if (output := _as_map(each, tail, size))]
    if not found:
        shapes = ", ".join(f"{each!r} {tail.known[each].shape}" for each in asked)
        raise MismatchedArtifact(
            f"{path}: expected scores (N, classes, H, W) or labels (N, H, W) as output, "
            f"found {shapes}",
            hint=_form_hint(asked, tail, size)
            + ("" if name is None else ", or name another output with --output"),
        )
    best = min(found, key=lambda output: _rank(output, classes))
    if best.channels > MAX_CLASSES:
        raise MismatchedArtifact(
            f"{path}: expected at most {MAX_CLASSES} classes, which a uint8 label map holds; "
            f"found {best.channels} in {best.name!r}",
            hint="merge classes before the export, or name another output with --output",
        )
    finer = tail.unshrunk(best.name) if name is None and best.kind == "scores" else None
    whole = _as_map(finer, tail, size) if finer and finer in inner else None
    if whole and math.prod(best.size) < math.prod(whole.size) <= math.prod(size):
        best = replace(whole, shrunk=best.name)
    passed = tuple(each for each in names if each != best.name)
    return replace(best, passed=passed)


def _refuse_others(names: Sequence[str], tail: Tail, path: Path) -> None:
    """Raise MismatchedArtifact for outputs of other tasks, by name or by shape."""
    for what, marks in (("panoptic", _PANOPTIC), ("detection", _DETECTION)):
        hits = [name for name in names if any(mark in name.lower() for mark in marks)]
        hits = hits or (_queries(names, tail) if what == "panoptic" else [])
        if hits:
            raise MismatchedArtifact(
                f"{path}: expected a network for semantic segmentation, found the outputs of a "
                f"{what} network ({', '.join(hits)})",
                hint="import a network that scores each class in each pixel, such as DeepLabV3, "
                "SegFormer or U-Net",
            )


def _queries(names: Sequence[str], tail: Tail) -> list[str]:
    """Two outputs (N, queries, classes) and (N, queries, H, W), as those of MaskFormer."""
    shapes = {name: tail.known[name].shape for name in names}
    classes = {name: shape for name, shape in shapes.items() if len(shape) == 3}
    for name, shape in shapes.items():
        pixels = math.prod(size or 0 for size in shape[2:])
        of = [other for other, each in classes.items() if each[1] == shape[1] and each[2] != pixels]
        if len(shape) == 4 and of:
            return [of[0], name]
    return []


def _as_map(name: str, tail: Tail, size: tuple[int, int]) -> Output | None:
    """The output as a map of the picture; None if it cannot be one."""
    tensor = tail.known[name]
    whole = tuple(size for size in tensor.shape if size)
    shape = _unflattened(whole, size)
    if len(whole) != len(tensor.shape) or not 2 <= len(shape) <= 4:
        return None
    if len(shape) == 4 and shape[0] != 1:
        return None
    shape = shape[1:] if len(shape) == 4 else shape
    source = tail.source(name)
    graded = _graded(source)
    masks = tensor.dtype == TensorProto.BOOL and len(shape) == 3 and 1 not in (shape[0], shape[2])
    floating = tensor.dtype == TensorProto.FLOAT
    ids = source is not None and source.is_choice and graded is None
    output = None
    if masks or (floating and not ids) or (graded and graded[1] != (0, 1)):
        shape = (1, *shape) if len(shape) == 2 else shape
        output = _scores(name, order_of(shape, size), shape, whole, tail)
        if output and output.channels > 1 and source is not None and source.is_table:
            return None
        if output and output.activation == "none" and graded:
            output = replace(output, activation=graded[0], ends=graded[1])
    elif floating or tensor.dtype in _LABELS:
        output = _labels(name, shape, whole, source)
    return output if output and _upright(output.size, size) else None


def _unflattened(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, ...]:
    """The shape with pixels in rows and columns, for outputs such as (N, H·W, classes)."""
    pixels = size[0] * size[1]
    if len(shape) > 3 or pixels not in shape:
        return shape
    place = shape.index(pixels)
    return (*shape[:place], *size, *shape[place + 1 :])


def _upright(found: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a map has about the picture's aspect, and not rather that of one on its side.

    Unpadded convolutions change the aspect a little; boxes of a detector have another altogether.
    """
    aspect = math.log(size[1] / size[0])
    own = math.log(found[1] / found[0])
    return abs(own - aspect) <= min(abs(own + aspect), _MOST_SKEWED) + 1e-9


def _form_hint(names: Sequence[str], tail: Tail, size: tuple[int, int]) -> str:
    sideways = (size[1], size[0])
    outputs = [tail.known[name] for name in names]
    shapes = [output.shape for output in outputs]
    if any(sideways in (shape[-2:], shape[-3:-1]) for shape in shapes) and size[0] != size[1]:
        return "swap height and width of the output before the export"
    if any(len(shape) == 4 and (shape[0] or 1) > 1 for shape in shapes):
        return "export it for a batch of one picture"
    if any(len(shape) == 5 for shape in shapes):
        return "export a network of single pictures, not of volumes or clips"
    if any(map(tail.is_ranked, names)):
        return "export class ids, or the scores of all classes, not those of the best alone"
    ids = any((source := tail.source(name)) and source.is_choice for name in names)
    if ids or any(output.dtype in _LABELS and len(output.shape) == 4 for output in outputs):
        return "export class ids or scores, neither colours nor one-hot classes"
    return "export a network for semantic segmentation"


def _scores(
    name: str,
    axes: Literal["chw", "hwc"],
    shape: tuple[int, ...],
    whole: tuple[int, ...],
    tail: Tail,
) -> Output | None:
    height, width, channels = (shape[axes.index(axis)] for axis in "hwc")
    if min(height, width) < _LEAST or tail.is_ranked(name):
        return None
    last = _ACTIVATIONS.get(tail.last(name), "none")
    of_classes = _classes(tail, name, axes, shape)
    return Output(name, "scores", axes, channels, (height, width), whole, last, of_classes)


def _classes(
    tail: Tail, name: str, axes: Literal["chw", "hwc"], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The class of each channel, where the graph passes on some channels of a Softmax."""
    found, source = tail.channels(name), tail.source(name)
    if found is None:
        return ()
    rows = found.reshape(shape).transpose([axes.index(axis) for axis in "chw"])
    classes: tuple[int, ...] = tuple(rows[:, 0, 0].tolist())
    if len(classes) > 1:
        return classes
    # One channel tells one class, or the object with all its parts, from the rest.
    falling = source is not None and source.values[-1] < source.values[0]
    return (int((classes[0] > 0) != falling),)


def _labels(
    name: str, shape: tuple[int, ...], whole: tuple[int, ...], source: Source | None
) -> Output | None:
    if len(shape) == 3:
        ones = [axis for axis in (0, 2) if shape[axis] == 1]
        if not ones:
            return None
        shape = shape[1:] if ones[0] == 0 else shape[:2]
    if min(shape) < _LEAST:
        return None
    output = Output(name, "labels", "hw", 0, (shape[0], shape[1]), whole)
    if source is None:
        return replace(output, unsure=True)
    values = np.unique(source.values)
    ids = values[~np.isin(values, UNSURE)]
    if not ids.size:
        return None
    every = ids.size if np.array_equal(ids, np.arange(ids.size)) else 0
    return replace(output, channels=every, ends=(ids[0], ids[-1]), unsure=ids.size < values.size)


def order_of(shape: tuple[int, ...], size: tuple[int, int]) -> Literal["chw", "hwc"]:
    """Order of the axes of scores: that in which height and width are those of a picture.

    Args:
        shape: Three axes.
        size: (height, width) of the picture, which a stride divides, rounded to a pixel.
    """
    height, width = size

    def off(rows: int, columns: int) -> int:
        return abs(rows * width - columns * height)

    first, last = off(shape[1], shape[2]), off(shape[0], shape[1])
    if min(first, last) > height + width:  # neither: channels are fewer than pixels
        return "hwc" if shape[2] < shape[0] else "chw"
    return "chw" if first <= last else "hwc"


def _graded(source: Source | None) -> tuple[Activation, tuple[float, float]] | None:
    """What made probabilities or decisions, and what stands for 0 and 1, as 0 and 255 in masks."""
    if source is None:
        return None
    values = np.unique(source.values)
    low, high = float(values[0]), float(values[-1])
    if source.is_choice and values.size != 2:
        return None
    if source.kind == "ArgMax":
        several = np.isin(values, UNSURE, invert=True).all() and source.values.size > 2
        if several or (low, high) == (0, 1):
            return None
    return (_ACTIVATIONS.get(source.kind, "sigmoid"), (low, high)) if low < high else None


def _rank(output: Output, classes: int | None) -> tuple[int, int, int, int]:
    """Order of preference; the least is the best."""
    lower = output.name.lower()
    side = any(part in lower for part in _SIDE)
    # One channel less may be a depth or a confidence as well as all classes but the background.
    fits = [classes, classes - 1] if classes and output.channels else [output.channels]
    unfit = fits.index(output.channels) if output.channels in fits else len(fits)
    place = next((i for i, part in enumerate(_MAIN) if part in lower), len(_MAIN))
    return side, unfit, place, -output.size[0] * output.size[1]
