"""Build options of TensorRT engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeseg.errors import UsageError

HardwareCompatibility = Literal["none", "ampere+", "same"]
Size = tuple[int, int]

DEFAULT_BATCH = (1, 1, 8)
"""Smallest, typical and largest batch where the network's varies and none is named."""

_LEVELS = range(6)


@dataclass(frozen=True)
class PlanOptions:
    """Build options of a TensorRT engine. None leaves a setting to TensorRT.

    Attributes:
        targets: Compute capabilities such as ``sm_86``; none for every GPU that the runtime
            supports. TensorRT-RTX alone compiles for another GPU than the one at hand.
        batch: Smallest, typical and largest batch of a network of dynamic batch size.
        sizes: Smallest, typical and largest (height, width) of a network of dynamic size.
        workspace_mib: Limit for scratch memory on the GPU.
        optimisation_level: 0 builds fastest, 5 searches longest for a fast engine.
        timing_cache: Measured kernel times, to build faster again: a file, ``none``, or
            ``auto`` for one of this TensorRT and GPU in the user's cache folder.
        dla_core: Run on this deep-learning accelerator of a Jetson.
        gpu_fallback: Layers that it does not take run on the GPU; otherwise they are refused.
        hardware_compatibility: Other GPUs that the engine must run on: ``ampere+`` for Ampere
            and later, ``same`` for those of the same compute capability.
        tf32: Let FP32 products be rounded to 10 bits of mantissa on tensor cores.
    """

    targets: tuple[str, ...] = ()
    batch: tuple[int, int, int] | None = None
    sizes: tuple[Size, Size, Size] | None = None
    workspace_mib: int | None = None
    optimisation_level: int | None = None
    timing_cache: Path | Literal["auto", "none"] = "auto"
    dla_core: int | None = None
    gpu_fallback: bool = True
    hardware_compatibility: HardwareCompatibility = "none"
    tf32: bool = True

    def __post_init__(self) -> None:
        if self.batch is not None and not 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]:
            raise UsageError(
                f"expected a batch of 1 <= smallest <= typical <= largest, not {self.batch}"
            )
        for axis in zip(*(self.sizes or ()), strict=True):
            if not 1 <= axis[0] <= axis[1] <= axis[2]:
                raise UsageError(
                    "expected sizes whose heights and widths are each smallest <= typical <= "
                    f"largest, not {axis}"
                )
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"the workspace is at least 1 MiB, not {self.workspace_mib}")
        if self.optimisation_level is not None and self.optimisation_level not in _LEVELS:
            raise UsageError(f"the optimisation level is 0…5, not {self.optimisation_level}")
        if self.dla_core is not None and self.dla_core < 0:
            raise UsageError(f"DLA cores are numbered from 0, not {self.dla_core}")
