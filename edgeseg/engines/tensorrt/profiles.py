"""The optimisation profile: the batches and sizes that an engine accepts."""

from __future__ import annotations

from typing import Any

from edgeseg.engines.tensorrt.settings import Used
from edgeseg.errors import UsageError
from edgeseg.options.building import PlanOptions

DEFAULT_BATCH = (1, 1, 8)
"""Smallest, typical and largest batch where the network's varies and none is named."""


def add_profile(builder: Any, config: Any, network: Any, options: PlanOptions) -> Used:
    """Add the profile that open dimensions need, without which nothing is built; what is in it.

    Raises:
        UsageError: A profile is asked for that the network's fixed dimensions leave no room
            for, or is missing, or is not (batch, channels, height, width).
    """
    source = network.get_input(0)
    shape = tuple(int(size) for size in source.shape)
    if len(shape) != 4 or shape[1] == -1:
        raise UsageError(f"input {source.name!r} is {shape}, not (batch, channels, height, width)")
    batches = _batches(shape, options)
    sizes = _sizes(shape, options)
    if -1 in shape:
        profile = builder.create_optimization_profile()
        shapes = ((n, shape[1], *size) for n, size in zip(batches, sizes, strict=True))
        profile.set_shape(source.name, *shapes)
        config.add_optimization_profile(profile)
    used: Used = {"batch": shape[0] if shape[0] != -1 else ":".join(map(str, batches))}
    if -1 in shape[2:]:
        used["sizes"] = ":".join(f"{width}x{height}" for height, width in sizes)
    return used


def _batches(shape: tuple[int, ...], options: PlanOptions) -> tuple[int, ...]:
    if shape[0] == -1:
        return options.batch or DEFAULT_BATCH
    if options.batch is not None and set(options.batch) != {shape[0]}:
        raise UsageError(
            f"the network takes batches of {shape[0]}, not {':'.join(map(str, options.batch))}",
            hint="export it with `edgeseg export --dynamic-batch`, or omit --batch",
        )
    return (shape[0],) * 3


def _sizes(shape: tuple[int, ...], options: PlanOptions) -> tuple[tuple[int, ...], ...]:
    height, width = shape[2:]
    if -1 not in (height, width):
        if options.sizes is not None and set(options.sizes) != {(height, width)}:
            raise UsageError(
                f"the network only takes pictures of {width}x{height}",
                hint="export it with `edgeseg export --dynamic-size`, or omit --sizes",
            )
        return ((height, width),) * 3
    if options.sizes is None:
        raise UsageError(
            "the network takes pictures of any size, and an engine has to know which",
            hint="name smallest, typical and largest: --sizes 256x128:512x256:1024x512",
        )
    for size in options.sizes:
        if height not in (-1, size[0]) or width not in (-1, size[1]):
            raise UsageError(f"the network is fixed to {shape[2:]} (-1 is open), not {size}")
    return options.sizes
