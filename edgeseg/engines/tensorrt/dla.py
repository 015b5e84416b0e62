"""Support for a Jetson's deep-learning accelerator (DLA), with fallback to the GPU."""

from __future__ import annotations

from typing import Any

from edgeseg.engines.tensorrt.library import is_rtx, product, version
from edgeseg.errors import RuntimeMissing, UsageError
from edgeseg.options.building import PlanOptions

_GONE, _BACK = (10, 8), (11, 4, 1)
"""First version without DLA, and first one that has it again."""


def implicit_only(trt: Any) -> bool:
    """Whether its DLA takes ranges of tensors instead of Q/DQ pairs: up to TensorRT 10.7."""
    return not is_rtx(trt) and version(trt) < _GONE


def require_dla(trt: Any, builder: Any, options: PlanOptions) -> None:
    """Check that the requested DLA exists.

    Raises:
        UsageError: This version of TensorRT has no DLA support, or the core does not exist.
        RuntimeMissing: This machine has no DLA.
    """
    if is_rtx(trt) or _GONE <= version(trt) < _BACK:
        raise UsageError(
            f"{product(trt)} has no DLA: TensorRT 8.6 … 10.7 have, and from 11.4.1 on",
            hint="omit --dla, or build with the TensorRT of that JetPack",
        )
    cores = int(builder.num_DLA_cores)
    if not cores:
        raise RuntimeMissing("there is no DLA on this machine", hint="omit --dla")
    assert options.dla_core is not None
    if options.dla_core >= cores:
        raise UsageError(f"there is no DLA core {options.dla_core}; there are 0 to {cores - 1}")


def use_dla(trt: Any, config: Any, options: PlanOptions) -> None:
    """Make the DLA the default device of all layers."""
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core
    if options.gpu_fallback:
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def layers_on_gpu(trt: Any, config: Any, network: Any, options: PlanOptions) -> tuple[str, ...]:
    """Names of the layers that the DLA does not support.

    Raises:
        UsageError: Such layers exist and may not fall back, or the network's shape is dynamic.
    """
    if -1 in tuple(network.get_input(0).shape):
        raise UsageError(
            "a DLA takes one batch and one size, and the network's vary",
            hint="export it without --dynamic-batch and --dynamic-size",
        )
    layers = [network.get_layer(place) for place in range(network.num_layers)]
    left = tuple(
        layer.name
        for layer in layers
        if config.get_device_type(layer) != trt.DeviceType.DLA or not config.can_run_on_DLA(layer)
    )
    if left and not options.gpu_fallback:
        raise UsageError(
            f"the DLA does not take {len(left)} of {len(layers)} layers: {', '.join(left[:8])}"
            + ("…" if len(left) > 8 else ""),
            hint="let them run on the GPU: --gpu-fallback",
        )
    return left
