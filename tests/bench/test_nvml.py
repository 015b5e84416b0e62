"""NVML behind ctypes: a library that writes what ``nvml.h`` says it writes."""

from __future__ import annotations

from ctypes import c_uint, c_ulonglong
from typing import Any

import pytest

from edgeseg.benchmark.nvml import LIBRARY, Device, GpuState, devices, gpu_states

NOT_SUPPORTED = 3
"""``NVML_ERROR_NOT_SUPPORTED``."""


class Library:
    """``libnvidia-ml`` of a machine with one GPU; a function without a value is not supported.

    Args:
        values: Function, with its argument where it takes one → the value it writes.
        start: What ``nvmlInit_v2`` returns.
    """

    def __init__(self, values: dict[str | tuple[str, int], int], start: int = 0) -> None:
        self.values = values
        self.start = start
        self.kinds: dict[str, Any] = {}

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVML's names
        return self.start

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 1
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: c_uint, handle: Any) -> int:  # noqa: N802
        assert index.value == 0
        handle._obj.value = 0xBEEF
        return 0

    def nvmlDeviceGetName(self, handle: Any, buffer: Any, length: c_uint) -> int:  # noqa: N802
        assert handle.value == 0xBEEF
        assert length.value == len(buffer) == 96
        buffer.value = b"NVIDIA H100 80GB HBM3"
        return 0

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)

        def call(handle: Any, *rest: Any) -> int:
            assert handle.value == 0xBEEF
            *which, out = rest
            key: Any = (name, which[0].value) if which else name
            self.kinds[name] = type(out._obj)
            if key not in self.values:
                return NOT_SUPPORTED
            out._obj.value = self.values[key]
            return 0

        return call


HOT = Library(
    {
        ("nvmlDeviceGetClockInfo", 1): 1410,
        ("nvmlDeviceGetClockInfo", 2): 2619,
        ("nvmlDeviceGetMaxClockInfo", 1): 1980,
        ("nvmlDeviceGetTemperature", 0): 88,
        ("nvmlDeviceGetTemperatureThreshold", 1): 87,
        "nvmlDeviceGetPowerUsage": 699_500,
        "nvmlDeviceGetEnforcedPowerLimit": 700_000,
        # nvmlClocksThrottleReasonGpuIdle | SwPowerCap | HwSlowdown | HwThermalSlowdown
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0x1 | 0x4 | 0x8 | 0x40,
        "nvmlDeviceGetTotalEnergyConsumption": 2**33 + 500,
    }
)


def test_what_a_gpu_tells_is_in_megahertz_watts_and_words() -> None:
    (state,) = gpu_states(lambda name: HOT if name == LIBRARY else None)
    assert state == GpuState(
        name="NVIDIA H100 80GB HBM3",
        sm_mhz=1410,
        sm_max_mhz=1980,
        memory_mhz=2619,
        temperature_c=88,
        limit_c=87,
        power_w=699.5,
        power_limit_w=700,
        throttle=("SwPowerCap", "HwSlowdown", "HwThermalSlowdown"),
    )


def test_energy_is_a_counter_of_64_bits_in_millijoules() -> None:
    (device,) = devices(lambda _: HOT)
    assert device.joules() == (2**33 + 500) / 1000
    assert HOT.kinds["nvmlDeviceGetTotalEnergyConsumption"] is c_ulonglong
    assert HOT.kinds["nvmlDeviceGetPowerUsage"] is c_uint


def test_a_gpu_that_supports_little_tells_little() -> None:
    (device,) = devices(lambda _: Library({("nvmlDeviceGetTemperature", 0): 41}))
    assert device.joules() is None
    assert device.state() == GpuState(name="NVIDIA H100 80GB HBM3", temperature_c=41)


def test_an_old_library_lacks_functions() -> None:
    class Old:
        def nvmlDeviceGetName(self, *_: Any) -> int:  # noqa: N802
            return NOT_SUPPORTED

    assert Device(Old(), c_uint()).state() == GpuState(name="NVIDIA GPU")  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [9, 18], ids=["driver not loaded", "version mismatch"])
def test_a_driver_that_does_not_answer_is_no_gpu(start: int) -> None:
    assert devices(lambda _: Library({}, start)) == ()


def test_no_library_is_no_gpu() -> None:
    def absent(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    assert devices(absent) == ()
    assert devices(lambda _: object()) == ()
