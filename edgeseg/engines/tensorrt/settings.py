"""Apply build options, the optimisation profile and a DLA; unsupported ones raise an error.

What a version lacks is found by asking its module, so that no version fails at import.
"""

from __future__ import annotations

from typing import Any

from edgeseg.engines.tensorrt.library import is_rtx, product, version
from edgeseg.errors import RuntimeMissing, UsageError
from edgeseg.options.building import PlanOptions

LEVELS = {"none": "NONE", "ampere+": "AMPERE_PLUS", "same": "SAME_COMPUTE_CAPABILITY"}
"""Hardware compatibility levels: name on the command line, and name in TensorRT."""

Used = dict[str, bool | int | float | str]


def configure(trt: Any, builder: Any, options: PlanOptions) -> tuple[Any, Used]:
    """A configuration and what was set in it.

    Raises:
        UsageError: This version cannot do what an option asks for.
    """
    config = builder.create_builder_config()
    # So that the engine can be asked for the precision of its layers.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    used: Used = {}
    _set_targets(trt, config, options)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
        used["workspace_mib"] = options.workspace_mib
    if options.optimisation_level is not None:
        if is_rtx(trt):
            raise UsageError(
                f"{product(trt)} builds the same engine at every optimisation level: it searches "
                "for kernels when the engine runs",
                hint="omit --optimisation-level",
            )
        config.builder_optimization_level = options.optimisation_level
        used["optimisation_level"] = options.optimisation_level
    if options.hardware_compatibility != "none":
        config.hardware_compatibility_level = _level(trt, options)
        used["hardware_compatibility"] = options.hardware_compatibility
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    used["tf32"] = bool(config.get_flag(trt.BuilderFlag.TF32))
    return config, used


def _set_targets(trt: Any, config: Any, options: PlanOptions) -> None:
    if not options.targets:
        return
    if not is_rtx(trt):
        raise UsageError(
            f"{product(trt)} compiles for the GPU of the machine it runs on, not for "
            f"{', '.join(options.targets)}",
            hint="omit --target (--hardware-compatibility widens what it runs on), or "
            "build with `--runtime tensorrt-rtx`",
        )
    known = {
        f"sm_{name.removeprefix('SM').lower()}": getattr(trt.ComputeCapability, name)
        for name in dir(trt.ComputeCapability)
        if name.startswith("SM")
    }
    unknown = [target for target in options.targets if target not in known]
    if unknown:
        raise UsageError(
            f"{product(trt)} cannot build for {', '.join(unknown)}; "
            f"it can for {', '.join(sorted(known))}"
        )
    config.num_compute_capabilities = len(options.targets)
    for place, target in enumerate(options.targets):
        config.set_compute_capability(known[target], place)


def _level(trt: Any, options: PlanOptions) -> Any:
    if is_rtx(trt):
        raise UsageError(
            f"{product(trt)} builds the same engine at every level of hardware compatibility",
            hint="name the GPUs with --target",
        )
    level = getattr(trt.HardwareCompatibilityLevel, LEVELS[options.hardware_compatibility], None)
    if level is None:
        here = [ours for ours, theirs in LEVELS.items()
                if hasattr(trt.HardwareCompatibilityLevel, theirs)]  # fmt: skip
        raise UsageError(
            f"{product(trt)} has no hardware compatibility {options.hardware_compatibility!r}; "
            f"it has {', '.join(here)}"
        )
    return level


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
