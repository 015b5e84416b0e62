"""Export networks with dynamic height and width.

A network is traced at the size of its card. Where that is a multiple of the network's stride,
no layer rounds or crops, and every factor and margin in the graph is the same for all such sizes.
Slices with an absolute end are rewritten to count from the end.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from torch import nn

from edgeseg.artifacts.card import ModelCard, OpenSize
from edgeseg.errors import UsageError
from edgeseg.models.mirror import mirror_width
from edgeseg.precision.graph import Tensor

_SEED = 1


def with_open_size(model: nn.Module, card: ModelCard) -> ModelCard:
    """Add to a card the sizes that a graph with dynamic height and width accepts.

    Raises:
        UsageError: The network works at one size only, or the card's size is not accepted.
    """
    if not getattr(model, "size_may_vary", True):
        raise UsageError(
            f"{card.arch} with these options holds values for one size of pictures, so its "
            "height and width cannot be left open",
            hint="export it without --dynamic-size",
        )
    step = int(model.stride)  # type: ignore[arg-type]
    # At least one more than what is mirrored, up to the next multiple.
    smallest = step * (mirror_width(model) // step + 1)
    rule = OpenSize(step=step, smallest=smallest)
    height, width = card.input.height, card.input.width
    if not rule.takes(height, width):
        better = [max(smallest, step * round(side / step)) for side in (width, height)]
        raise UsageError(
            f"{card.arch} takes open heights and widths that are {rule}, and its own size is "
            f"{width}x{height}",
            hint=f"train it with --size {better[0]}x{better[1]}, or export without --dynamic-size",
        )
    return card.model_copy(update={"input": card.input.model_copy(update={"open_size": rule})})


def count_from_the_end(model: ModelProto, known: dict[str, Tensor]) -> None:
    """Rewrite Slice ends relative to the end of their input, in place.

    Args:
        model: A graph traced at one size.
        known: The graph's tensors, with their shapes at that size.
    """
    constants = {weight.name: weight for weight in model.graph.initializer}
    for place, node in enumerate(n for n in model.graph.node if n.op_type == "Slice"):
        starts, ends, axes = (numpy_helper.to_array(constants[n]) for n in node.input[1:4])
        sizes = np.array([known[node.input[0]].shape[axis] for axis in axes])
        relative = np.where((ends > 0) & (ends < sizes) & (starts >= 0), ends - sizes, ends)
        name = f"slice_{place}_ends"
        model.graph.initializer.append(numpy_helper.from_array(relative.astype(np.int64), name))
        node.input[2] = name


def other_sizes(card: ModelCard) -> Iterator[NDArray[np.float32]]:
    """Yield noise (1, C, height, width) of the smallest size, a wider and a taller one."""
    spec = card.input
    if spec.open_size is None:
        return
    step, smallest = spec.open_size.step, spec.open_size.smallest
    sizes = {
        (smallest, smallest),
        (spec.height, spec.width + 2 * step),
        (spec.height + step, spec.width),
    }
    random = np.random.default_rng(_SEED)
    for height, width in sorted(sizes):
        yield random.normal(size=(1, spec.channels, height, width)).astype(np.float32)
