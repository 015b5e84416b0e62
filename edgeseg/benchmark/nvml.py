"""State and energy of NVIDIA GPUs, read through NVML by the package ``nvidia-ml-py``.

Names and units are those of NVML's API reference. A GPU or a driver that does not support a
query gives None: Jetsons support few of them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeseg.artifacts.documents import Document

DRIVER = Path("/proc/driver/nvidia/version")

THROTTLE_REASONS = (
    "ApplicationsClocksSetting",
    "SwPowerCap",
    "HwSlowdown",
    "SyncBoost",
    "SwThermalSlowdown",
    "HwThermalSlowdown",
    "HwPowerBrakeSlowdown",
    "DisplayClockSetting",
)
"""``nvmlClocksEventReason*`` from bit 1 on; bit 0, an idle GPU, is not one."""

logger = logging.getLogger(__name__)


class GpuState(Document):
    """State of one NVIDIA GPU; values that its driver does not report are None.

    ``throttle`` names what reduces its clock, in NVML's words, except idling.
    """

    name: str
    sm_mhz: float | None = None
    sm_max_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    limit_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    throttle: tuple[str, ...] = ()


class Device:
    """One GPU.

    Args:
        nvml: The module ``pynvml``, initialised.
        handle: What it identifies the GPU by.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    @property
    def name(self) -> str:
        """``NVIDIA H100 80GB HBM3``."""
        return self._ask(self._nvml.nvmlDeviceGetName) or "NVIDIA GPU"

    def joules(self) -> float | None:
        """Energy since the driver was loaded; GPUs before Volta do not count it."""
        return _thousandth(self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption))

    def state(self) -> GpuState:
        """Clocks, temperature, power and what reduces the clock, now."""
        nvml, ask = self._nvml, self._ask
        bits = ask(nvml.nvmlDeviceGetCurrentClocksEventReasons) or 0
        slowdown = nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        return GpuState(
            name=self.name,
            sm_mhz=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            sm_max_mhz=ask(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
            memory_mhz=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            temperature_c=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            limit_c=ask(nvml.nvmlDeviceGetTemperatureThreshold, slowdown),
            power_w=_thousandth(ask(nvml.nvmlDeviceGetPowerUsage)),
            power_limit_w=_thousandth(ask(nvml.nvmlDeviceGetEnforcedPowerLimit)),
            throttle=tuple(
                name for bit, name in enumerate(THROTTLE_REASONS, 1) if bits & (1 << bit)
            ),
        )

    def _ask(self, query: Callable[..., Any], *arguments: int) -> Any:
        """The answer, None where the GPU or its driver does not support the query."""
        try:
            return query(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def devices() -> tuple[Device, ...]:
    """List the GPUs of this machine; empty without ``nvidia-ml-py``, driver or GPU.

    NVML counts how often it was initialised, and it stays so until the process ends.
    """
    try:
        import pynvml
    except ImportError:
        if DRIVER.exists():
            _warn_once()
        return ()
    try:
        pynvml.nvmlInit()
        indices = range(pynvml.nvmlDeviceGetCount())
        return tuple(Device(pynvml, pynvml.nvmlDeviceGetHandleByIndex(place)) for place in indices)
    except pynvml.NVMLError:
        return ()


def gpu_states() -> tuple[GpuState, ...]:
    """The state of each GPU, as :func:`devices` finds them."""
    return tuple(device.state() for device in devices())


@functools.cache
def _warn_once() -> None:
    logger.warning(
        "clocks, temperature and energy of the GPU are not read: pip install nvidia-ml-py"
    )


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
