"""State and energy of NVIDIA GPUs, read through NVML."""

from __future__ import annotations

from edgeseg.artifacts.documents import Document
from edgeseg.machine import NvmlDevice

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


def joules(device: NvmlDevice) -> float | None:
    """Energy since the driver was loaded; GPUs before Volta do not count it."""
    return _thousandth(device.ask("TotalEnergyConsumption"))


def gpu_state(device: NvmlDevice) -> GpuState:
    """Clocks, temperature, power and what reduces the clock, now."""
    nvml, ask = device.nvml, device.ask
    bits = ask("CurrentClocksEventReasons") or 0
    return GpuState(
        name=device.name,
        sm_mhz=ask("ClockInfo", nvml.NVML_CLOCK_SM),
        sm_max_mhz=ask("MaxClockInfo", nvml.NVML_CLOCK_SM),
        memory_mhz=ask("ClockInfo", nvml.NVML_CLOCK_MEM),
        temperature_c=ask("Temperature", nvml.NVML_TEMPERATURE_GPU),
        limit_c=ask("TemperatureThreshold", nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
        power_w=_thousandth(ask("PowerUsage")),
        power_limit_w=_thousandth(ask("EnforcedPowerLimit")),
        throttle=tuple(name for bit, name in enumerate(THROTTLE_REASONS, 1) if bits & (1 << bit)),
    )


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
