"""The picture that a network made elsewhere takes, and the nodes in front of it.

Engines take float32 (1, C, height, width). A network may want another layout or uint8: a cast and
a transposition in front of it make up for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from edgeseg.errors import MismatchedArtifact, UsageError
from edgeseg.importing.reading import Original, every_node
from edgeseg.importing.shapes import with_fixed_input

_DTYPES = ("float32", "float16", "float64", "uint8")
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class PictureInput:
    """The input of a network as its file declares it.

    Attributes:
        name: Name of the input.
        dtype: ``float32``, ``float16``, ``float64`` or ``uint8``.
        layout: ``nchw`` or ``nhwc``, without ``n`` for a network without a batch axis.
        batch: Fixed batch size; None if it is open.
        channels: 1 or 3.
        height: Fixed height in pixels; None if it is open.
        width: Fixed width in pixels; None if it is open.
    """

    name: str
    dtype: str
    layout: Literal["nchw", "nhwc", "chw", "hwc"]
    batch: int | None
    channels: int
    height: int | None
    width: int | None

    def shape(self, size: tuple[int, int], batch: int = 1) -> tuple[int, ...]:
        """Shape of the input for pictures of ``size`` (H, W)."""
        sizes = {"n": batch, "c": self.channels, "h": size[0], "w": size[1]}
        return tuple(sizes[axis] for axis in self.layout)

    def feed(self, tensor: NDArray[np.float32]) -> NDArray[Any]:
        """Turn a tensor (1, C, H, W) into what the original network takes."""
        axes = ["nchw".index(axis) for axis in self.layout if axis != "n"]
        fed = tensor[0].transpose([axis - 1 for axis in axes])
        fed = np.rint(fed) if self.dtype == "uint8" else fed
        if "n" in self.layout:
            fed = np.repeat(fed[np.newaxis], self.batch or 1, axis=0)
        return np.ascontiguousarray(fed, self.dtype)

    def __str__(self) -> str:
        sizes = {"n": self.batch, "c": self.channels, "h": self.height, "w": self.width}
        shape = ", ".join(str(sizes[axis] or axis.upper()) for axis in self.layout)
        return f"{self.name!r} {self.dtype} ({shape})"


def find_picture(original: Original) -> PictureInput:
    """Find the input that takes the picture.

    Raises:
        MismatchedArtifact: The network has several inputs, or its input is no picture.
    """
    graph, path = original.model.graph, original.path
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise MismatchedArtifact(
            f"{path}: expected one input, a picture; found {[value.name for value in inputs]}",
            hint="export the network alone, with the picture as its only argument",
        )
    kind = inputs[0].type.tensor_type
    # Some exporters write -1 for an open axis.
    dims = [d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim]
    declared = original.ports[inputs[0].name]
    layout = _layout(dims, original.model, inputs[0].name)
    if declared not in _DTYPES or layout is None:
        raise MismatchedArtifact(
            f"{path}: expected a picture in floating point or uint8 (N, C, H, W) or (N, H, W, C) "
            f"of 1 or 3 channels as input, found {inputs[0].name!r} {declared} "
            f"({', '.join(str(size or '?') for size in dims)})",
            hint="export the network with a picture as its input, and its channels fixed",
        )
    found = dict(zip(layout, dims, strict=True))
    if any(d.HasField("dim_value") and d.dim_value == 0 for d in kind.shape.dim):
        raise MismatchedArtifact(
            f"{path}: expected a batch of one picture or an open one, found {inputs[0].name!r} of "
            f"shape ({', '.join(str(d.dim_value) for d in kind.shape.dim)})",
            hint="export it again for a batch of one picture",
        )
    return PictureInput(
        name=inputs[0].name,
        dtype=declared,
        layout=layout,
        batch=found.get("n"),
        channels=found["c"] or 3,
        height=found["h"],
        width=found["w"],
    )


def _layout(
    dims: list[int | None], model: ModelProto, name: str
) -> Literal["nchw", "nhwc", "chw", "hwc"] | None:
    if len(dims) not in (3, 4):
        return None
    batched = len(dims) == 4
    before, after = dims[-3], dims[-1]
    first, last = before in _CHANNELS, after in _CHANNELS
    if not first and not last:
        if before is not None and after is not None:
            return None
        # Open channels: a network that moves the last axis to the front takes them last.
        last = before is not None or _moves_channels(model, name)
    if first or not last:
        return "nchw" if batched else "chw"
    return "nhwc" if batched else "hwc"


def _moves_channels(model: ModelProto, name: str) -> bool:
    readers = [node for node in model.graph.node if name in node.input]
    return any(
        node.op_type == "Transpose" and list(attribute.ints) in ([0, 3, 1, 2], [2, 0, 1])
        for node in readers
        for attribute in node.attribute
    )


def size_of(
    picture: PictureInput, asked: tuple[int, int] | None, path: Path
) -> tuple[int, int] | None:
    """(height, width) that the network is built for; None if nothing decides it.

    Raises:
        UsageError: Another size was asked for than the network is fixed to.
    """
    fixed = (picture.height, picture.width)
    if asked is None:
        return (fixed[0], fixed[1]) if fixed[0] and fixed[1] else None
    for own, wanted in zip(fixed, asked, strict=True):
        if own and own != wanted:
            taken = f"{picture.width or asked[1]}x{picture.height or asked[0]}"
            raise UsageError(
                f"--size {asked[1]}x{asked[0]}: {path} is fixed to "
                f"{picture.width or 'any'}x{picture.height or 'any'}",
                hint=f"--size {taken}, or export the network at the size that you want",
            )
    return asked


def wrap_input(model: ModelProto, picture: PictureInput, size: tuple[int, int]) -> ModelProto:
    """Return a copy that takes float32 (1, C, H, W) under the name it had, its shapes fixed."""
    wrapped = with_fixed_input(model, picture.name, picture.shape(size))
    graph = wrapped.graph
    (port,) = [value for value in graph.input if value.name == picture.name]
    axes = ["nchw".index(axis) for axis in picture.layout]
    nodes = []
    last = picture.name
    if picture.dtype == "uint8":  # the graph as it was read has wider integers
        to = TensorProto.INT32
        nodes.append(helper.make_node("Cast", [last], ["picture/levels"], "picture/Cast", to=to))
        last = "picture/levels"
    if "n" not in picture.layout:
        shape = helper.make_tensor(
            "picture/shape", TensorProto.INT64, [3], [picture.channels, *size]
        )
        graph.initializer.append(shape)
        nodes.append(
            helper.make_node("Reshape", [last, shape.name], ["picture/single"], "picture/Reshape")
        )
        last = "picture/single"
        axes = [axis - 1 for axis in axes]
    if axes != sorted(axes):
        nodes.append(
            helper.make_node("Transpose", [last], ["picture/moved"], "picture/Transpose", perm=axes)
        )
        last = "picture/moved"
    if nodes:
        for node in every_node(graph):
            for place, name in enumerate(node.input):
                if name == picture.name:
                    node.input[place] = last
        body = [type(node).FromString(node.SerializeToString()) for node in graph.node]
        del graph.node[:]
        graph.node.extend([*nodes, *body])
    whole = (1, picture.channels, *size)
    port.CopyFrom(helper.make_tensor_value_info(picture.name, TensorProto.FLOAT, whole))
    # Weights that are listed as inputs as well, as exporters of old did, are constants here.
    others = [value for value in graph.input if value.name != picture.name]
    for value in others:
        graph.input.remove(value)
    return wrapped
