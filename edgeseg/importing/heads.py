"""From the output of a network made elsewhere to uint8 labels of the picture's size, in the graph.

Scores are enlarged before the argmax unless ``enlarge`` is ``labels``: bilinear with half-pixel
centres, as ``torch.nn.functional.interpolate(…, align_corners=False)``. The two differ along
borders by points of mean IoU.

Where classes exclude each other, the highest score wins. Independent scores (sigmoid) have a
threshold: a plane of that height stands for the background, so that one argmax says which class
is strongest and whether it is above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeseg.importing.outputs import Output
from edgeseg.importing.shapes import rename
from edgeseg.options.importing import Enlarge
from edgeseg.precision.graph import remove_unread, tensors, unused_name

LABELS = "labels"


@dataclass(frozen=True)
class Head:
    """How an output becomes labels.

    Attributes:
        output: The output.
        classes: Number of classes.
        size: (height, width) of the labels.
        enlarge: What is resized where the output has another size: ``scores`` or ``labels``.
        threshold: Score from which a class counts, in the units of the output; None where the
            highest score wins.
        background: Class of pixels where no score exceeds the threshold.
        drawn: Whether the background has a channel of its own, which the threshold replaces.
        rest: Whether ``background`` has the probability that the others leave.
        cleaned: Whether labels that are no class become the background.
    """

    output: Output
    classes: int
    size: tuple[int, int]
    enlarge: Enlarge = "scores"
    threshold: float | None = None
    background: int = 0
    drawn: bool = False
    rest: bool = False
    cleaned: bool = False

    @property
    def resized(self) -> bool:
        """Whether the output has another size than the labels."""
        return self.output.size != self.size


class _Chain:
    """Nodes in a row behind an output."""

    def __init__(self, model: ModelProto, last: str) -> None:
        self.graph = model.graph
        self.last = last
        self._taken = set(tensors(model))

    def add(self, kind: str, what: str, *inputs: NDArray[Any], **attributes: Any) -> None:
        """Append a node that reads the last result and constants."""
        names = [self.constant(f"{what}/{place}", value) for place, value in enumerate(inputs)]
        self.node(kind, what, [self.last, *names], **attributes)

    def node(self, kind: str, what: str, inputs: list[str], **attributes: Any) -> None:
        """Append a node with inputs by name."""
        self.last = unused_name(f"labels/{what}:0", self._taken)
        name = self.last.removesuffix(":0")
        self.graph.node.append(helper.make_node(kind, inputs, [self.last], name, **attributes))

    def reshape(self, what: str, old: tuple[int, ...], new: tuple[int, ...]) -> None:
        """Append a Reshape where the shapes differ."""
        if old != new:
            self.add("Reshape", what, np.array(new, np.int64))

    def constant(self, what: str, value: NDArray[Any]) -> str:
        """Add an initializer; an empty array stands for an input that is left out."""
        if not value.size:
            return ""
        name = unused_name(f"labels/{what}", self._taken)
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name


def append_head(model: ModelProto, head: Head) -> None:
    """Replace the outputs of a graph of fixed shapes by ``labels`` uint8 (1, H, W), in place."""
    output = head.output
    rename(model, LABELS, f"{LABELS}_original")
    last = f"{LABELS}_original" if output.name == LABELS else output.name
    chain = _Chain(model, last)
    if output.kind == "labels":
        chain.reshape("Reshape", output.shape, (1, *output.size))
        if head.cleaned:
            _clean(chain, head, tensors(model)[last].dtype)
    else:
        _class_of_scores(chain, head, tensors(model)[chain.last].dtype)
    if head.resized and (output.kind == "labels" or head.enlarge == "labels"):
        _resize_labels(chain, head.size)
    chain.add("Cast", "Cast", to=TensorProto.UINT8)
    model.graph.node[-1].output[0] = LABELS
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info(LABELS, TensorProto.UINT8, (1, *head.size))
    )
    remove_unread(model)


def _clean(chain: _Chain, head: Head, kind: int) -> None:
    """Put the background where labels are no class."""
    dtype, labels = helper.tensor_dtype_to_np_dtype(kind), chain.last
    ends = [np.array(end, dtype) for end in (-1, head.classes)]
    chain.add("Greater", "Greater", ends[0])
    above = chain.last
    chain.node("Less", "Less", [labels, chain.constant("end", ends[1])])
    chain.node("And", "And", [above, chain.last])
    background = chain.constant("background", np.array(head.background, dtype))
    chain.node("Where", "Where", [chain.last, labels, background])


def _class_of_scores(chain: _Chain, head: Head, kind: int) -> None:
    output = head.output
    if kind != TensorProto.FLOAT:
        chain.add("Cast", "Cast_scores", to=TensorProto.FLOAT)
    sizes = {"c": output.channels, "h": output.size[0], "w": output.size[1]}
    chain.reshape("Reshape", output.shape, (1, *(sizes[axis] for axis in output.axes)))
    if output.axes == "hwc":
        chain.add("Transpose", "Transpose", perm=[0, 3, 1, 2])
    size = output.size
    if head.resized and head.enlarge == "scores":
        size = head.size
        none = np.array([], np.float32)
        whole = np.array([1, output.channels, *size], np.int64)
        mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        chain.add("Resize", "Resize", none, none, whole, **mode)
    if head.rest or head.threshold is not None:
        _insert_plane(chain, head, size)
    chain.add("ArgMax", "ArgMax", axis=1, keepdims=0)


def _insert_plane(chain: _Chain, head: Head, size: tuple[int, int]) -> None:
    """Put a plane of the threshold, or the rest, where the background belongs."""
    at, channels, scores = head.background, head.output.channels, chain.last
    if head.rest:
        chain.add("ReduceSum", "ReduceSum", np.array([1], np.int64))
        chain.node("Sub", "Sub", [chain.constant("one", np.ones(1, np.float32)), chain.last])
        plane = chain.last
    else:
        plane = chain.constant("threshold", np.full((1, 1, *size), head.threshold, np.float32))
    parts = []
    for what, start, stop in (("before", 0, at), ("after", at + head.drawn, channels)):
        whole = start == 0 and stop == channels
        if start < stop and not whole:
            chain.last = scores
            ends = [np.array([value], np.int64) for value in (start, stop, 1)]
            chain.add("Slice", f"Slice_{what}", *ends)
        parts.append(chain.last if start < stop and not whole else scores if whole else "")
    inputs = [parts[0], plane, parts[1]]
    chain.node("Concat", "Concat", [name for name in inputs if name], axis=1)


def _resize_labels(chain: _Chain, size: tuple[int, int]) -> None:
    """Nearest label, half-pixel centres; in float, which every runtime resizes."""
    chain.add("Cast", "Cast_float", to=TensorProto.FLOAT)
    chain.add("Unsqueeze", "Unsqueeze", np.array([1], np.int64))
    none = np.array([], np.float32)
    mode = {"mode": "nearest", "nearest_mode": "round_prefer_ceil"}
    half = {"coordinate_transformation_mode": "half_pixel"}
    chain.add("Resize", "Resize", none, none, np.array([1, 1, *size], np.int64), **mode, **half)
    chain.add("Squeeze", "Squeeze", np.array([1], np.int64))


def labels_of(raw: NDArray[Any], head: Head) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels of a raw output in NumPy and OpenCV, the twin of :func:`append_head`.

    Args:
        raw: The output for one picture, of the original network.
        head: How it becomes labels.

    Returns:
        Labels int64 (H, W), and the margin between the two best scores float64 (H, W), infinite
        for an output of labels.
    """
    output, (height, width) = head.output, head.size
    if output.kind == "labels":
        labels = raw.reshape(output.size)
        if head.cleaned:
            known = (labels >= 0) & (labels < head.classes)
            labels = np.where(known, labels, head.background)
        margin = np.full(output.size, np.inf)
    else:
        sizes = {"c": output.channels, "h": output.size[0], "w": output.size[1]}
        scores = raw.astype(np.float32).reshape([sizes[axis] for axis in output.axes])
        scores = scores.transpose(2, 0, 1) if output.axes == "hwc" else scores
        if head.resized and head.enlarge == "scores":
            linear = [cv2.resize(np.ascontiguousarray(s), (width, height)) for s in scores]
            scores = np.stack([np.asarray(each, np.float32) for each in linear])
        labels, margin = _strongest(scores, head)
    if labels.shape != head.size:
        labels, margin = _nearest(labels, head.size), _nearest(margin, head.size)
    return labels.astype(np.int64), margin.astype(np.float64)


def _strongest(scores: NDArray[np.float32], head: Head) -> tuple[NDArray[Any], NDArray[Any]]:
    if head.rest or head.threshold is not None:
        rest = 1 - scores.sum(axis=0, keepdims=True)
        plane = rest if head.rest else np.full_like(rest, head.threshold)
        at = head.background
        scores = np.concatenate([scores[:at], plane, scores[at + head.drawn :]])
    ordered = np.sort(scores, axis=0)
    return np.argmax(scores, axis=0), ordered[-1] - ordered[-2]


def _nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    rows, columns = (
        (np.arange(new) * 2 + 1) * old // (2 * new)
        for old, new in zip(values.shape, size, strict=True)
    )
    return values[np.ix_(rows, columns)]
