"""Minimal bindings of NVIDIA's management library (NVML) for benchmarks.

Names, units and numbers are those of NVML's API reference (``nvml.h``). A call that a GPU does
not support gives None: Jetson's library knows few of them. The library is the driver's, so
where it is absent there is no GPU to tell of.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from edgeseg.artifacts.documents import Document

LIBRARY = "libnvidia-ml.so.1"

SM_CLOCK, MEMORY_CLOCK = 1, 2
SLOWDOWN = 1
"""Index in ``nvmlTemperatureThresholds_t`` of the temperature at which hardware slows down."""

THROTTLE_REASONS = {
    0x0002: "ApplicationsClocksSetting",
    0x0004: "SwPowerCap",
    0x0008: "HwSlowdown",
    0x0010: "SyncBoost",
    0x0020: "SwThermalSlowdown",
    0x0040: "HwThermalSlowdown",
    0x0080: "HwPowerBrakeSlowdown",
    0x0100: "DisplayClockSetting",
    0x0200: "BoardLimit",
    0x0400: "Reliability",
}
"""``nvmlClocksThrottleReason*`` by bit; 0x1, an idle GPU, is none."""

LoadLibrary = Callable[[str], Any]


class GpuState(Document):
    """State of one NVIDIA GPU; values that its driver does not report are None.

    ``throttle`` names what holds its clock back, in NVML's words, being idle left out.
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
    """One GPU behind a loaded library.

    Args:
        library: ``libnvidia-ml``, initialised.
        handle: ``nvmlDevice_t``.
    """

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle

    @property
    def name(self) -> str:
        """``NVIDIA H100 80GB HBM3``."""
        buffer = ctypes.create_string_buffer(96)
        code = self._library.nvmlDeviceGetName(self._handle, buffer, ctypes.c_uint(96))
        return buffer.value.decode(errors="replace") if code == 0 else "NVIDIA GPU"

    def joules(self) -> float | None:
        """Energy since the driver was loaded; GPUs before Volta do not count it."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption", kind=ctypes.c_ulonglong)
        return None if millijoules is None else millijoules / 1000

    def state(self) -> GpuState:
        """Clocks, temperature, power and what holds the clock back, now."""
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", kind=ctypes.c_ulonglong) or 0
        power = self._ask("nvmlDeviceGetPowerUsage")
        limit = self._ask("nvmlDeviceGetEnforcedPowerLimit")
        return GpuState(
            name=self.name,
            sm_mhz=self._ask("nvmlDeviceGetClockInfo", SM_CLOCK),
            sm_max_mhz=self._ask("nvmlDeviceGetMaxClockInfo", SM_CLOCK),
            memory_mhz=self._ask("nvmlDeviceGetClockInfo", MEMORY_CLOCK),
            temperature_c=self._ask("nvmlDeviceGetTemperature", 0),
            limit_c=self._ask("nvmlDeviceGetTemperatureThreshold", SLOWDOWN),
            power_w=None if power is None else power / 1000,
            power_limit_w=None if limit is None else limit / 1000,
            throttle=tuple(name for bit, name in THROTTLE_REASONS.items() if bits & bit),
        )

    def _ask(self, function: str, *which: int, kind: Any = ctypes.c_uint) -> int | None:
        """The value that ``function`` writes, None where library or GPU do not know it."""
        call = getattr(self._library, function, None)
        if call is None:
            return None
        value = kind()
        code = call(self._handle, *map(ctypes.c_uint, which), ctypes.byref(value))
        return int(value.value) if code == 0 else None


def devices(load: LoadLibrary = ctypes.CDLL) -> tuple[Device, ...]:
    """List the GPUs of this machine; empty without library, driver or GPU.

    NVML counts how often it was initialised, and it stays so until the process ends.

    Args:
        load: Opens the library; another in tests.
    """
    try:
        library = load(LIBRARY)
        if library.nvmlInit_v2() != 0:
            return ()
    except (OSError, AttributeError):
        return ()
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return ()
    return tuple(_handles(library, count.value))


def _handles(library: Any, count: int) -> Iterator[Device]:
    for index in range(count):
        handle = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) == 0:
            yield Device(library, handle)


def gpu_states(load: LoadLibrary = ctypes.CDLL) -> tuple[GpuState, ...]:
    """The state of each GPU, as :func:`devices` finds them."""
    return tuple(device.state() for device in devices(load))
