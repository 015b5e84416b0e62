"""Apply build options to TensorRT's configuration; unsupported ones raise an error.

What a version lacks is found by asking its module, so that no version fails at import.
"""

from __future__ import annotations

from typing import Any

from edgeseg.engines.tensorrt.library import is_rtx, product
from edgeseg.errors import UsageError
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
