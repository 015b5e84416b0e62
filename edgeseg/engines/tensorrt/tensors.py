"""Check the input and output of an engine against its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ModelCard
from edgeseg.errors import MismatchedArtifact
from edgeseg.ops.argmax import argmax

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensors:
    """Names of the one input and the one output, and what shapes they take.

    ``smallest`` and ``largest`` are shapes (N, C, height, width) of the input, equal where
    nothing varies; ``classes`` is the number of score planes, None where the output is labels.
    """

    input: str
    output: str
    smallest: Shape
    largest: Shape
    classes: int | None

    @property
    def output_dtype(self) -> np.dtype[Any]:
        """Float32 scores or uint8 labels."""
        return np.dtype(np.uint8 if self.classes is None else np.float32)

    def takes(self, shape: Shape) -> bool:
        """Whether an input may have this shape."""
        ranges = zip(self.smallest, shape, self.largest, strict=True)
        return all(low <= size <= high for low, size, high in ranges)

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of ``shape``."""
        planes = () if self.classes is None else (self.classes,)
        return (shape[0], *planes, *shape[2:])

    def labels(self, output: NDArray[Any]) -> NDArray[np.uint8]:
        """Label maps of what the engine gave: themselves, or the highest score's class."""
        if self.classes is None:
            return output
        return argmax(output)


def read_tensors(trt: Any, engine: Any, card: ModelCard, path: Path) -> Tensors:
    """What goes in and out of ``engine``.

    Raises:
        MismatchedArtifact: It is not what the card says.
    """
    names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
    ins = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outs = [name for name in names if name not in ins]
    if len(ins) != 1 or len(outs) != 1:
        raise MismatchedArtifact(f"{path}: expected one input and one output, found {names}")
    shape = tuple(engine.get_tensor_shape(ins[0]))
    low, high = shape, shape
    if -1 in shape:
        low, _, high = (tuple(each) for each in engine.get_tensor_profile_shape(ins[0], 0))
    classes = len(card.classes) if card.output == "logits" else None
    found = Tensors(ins[0], outs[0], low, high, classes)
    want = (low[0], *card.input.shape)
    if len(shape) != 4 or not found.takes(want):
        size = f"{low}" if low == high else f"{low} … {high}"
        _refuse(path, f"its card says {ins[0]!r} is {want}", f"the engine says {size}")
    declared, expected = tuple(engine.get_tensor_shape(outs[0])), found.output_shape(want)
    if len(declared) != len(expected) or any(
        size not in (-1, known) for size, known in zip(declared[1:], expected[1:], strict=True)
    ):
        _refuse(path, f"its card says {outs[0]!r} is {expected}", f"the engine says {declared}")
    types = {
        ins[0]: trt.DataType.FLOAT,
        outs[0]: trt.DataType.UINT8 if classes is None else trt.DataType.FLOAT,
    }
    for name, dtype in types.items():
        given = engine.get_tensor_dtype(name)
        if given != dtype:
            _refuse(
                path, f"its card says {name!r} is {dtype.name}", f"the engine says {given.name}"
            )
    return found


def _refuse(path: Path, card: str, engine: str) -> None:
    raise MismatchedArtifact(
        f"{path}: {card}, {engine}", hint="build it again with `edgeseg build --overwrite`"
    )
