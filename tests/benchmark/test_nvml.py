"""GPU state through NVML: a stand-in for ``pynvml`` with one GPU, since tests have none."""

import importlib
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from edgeseg.benchmark import conditions
from edgeseg.benchmark.conditions import GpuState, gpu_state, joules
from edgeseg.machine import Gpu, gpus, nvml_devices


class NVMLError(Exception):
    """What ``pynvml`` raises."""

    def __init__(self, message: str, value: int = 18) -> None:
        super().__init__(message)
        self.value = value


class Stand:
    """``pynvml`` on a machine with one GPU; queries without an answer are not supported.

    Args:
        answers: Query without its prefix, with its argument where it takes one → the answer.
        start: What ``nvmlInit`` raises, if anything.
    """

    NVMLError = NVMLError
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
    NVML_TEMPERATURE_GPU = 0
    NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1

    def __init__(self, answers: dict[Any, Any], start: Exception | None = None) -> None:
        self._answers = answers
        self._start = start

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        if self._start:
            raise self._start

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        assert index == 0
        return "handle"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)

        def query(handle: str, *which: int) -> Any:
            assert handle == "handle"
            key: Any = (name.removeprefix("nvmlDeviceGet"), *which)
            if key not in self._answers:
                raise NVMLError("Not Supported")
            return self._answers[key]

        return query


HOT = {
    ("Name",): "NVIDIA H100 80GB HBM3",
    ("MemoryInfo",): SimpleNamespace(total=81559 << 20),
    ("CudaComputeCapability",): (9, 0),
    ("ClockInfo", 1): 1410,
    ("ClockInfo", 2): 2619,
    ("MaxClockInfo", 1): 1980,
    ("Temperature", 0): 88,
    ("TemperatureThreshold", 1): 87,
    ("PowerUsage",): 699_500,
    ("EnforcedPowerLimit",): 700_000,
    # GpuIdle | SwPowerCap | HwSlowdown | HwThermalSlowdown
    ("CurrentClocksEventReasons",): 0x1 | 0x4 | 0x8 | 0x40,
    ("TotalEnergyConsumption",): 2**33 + 500,
}


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return lambda *given: monkeypatch.setitem(sys.modules, "pynvml", Stand(*given))


def test_a_gpu_reports_megahertz_watts_and_throttle_reasons(stand: Any) -> None:
    stand(HOT)
    (device,), failure = nvml_devices()
    assert failure == ""
    assert gpu_state(device) == GpuState(
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
    assert joules(device) == (2**33 + 500) / 1000


def test_unsupported_queries_give_none(stand: Any) -> None:
    stand({("Temperature", 0): 41})
    (device,), _ = nvml_devices()
    assert joules(device) is None
    assert gpu_state(device) == GpuState(name="NVIDIA GPU", temperature_c=41)


def test_a_gpu_is_described(stand: Any) -> None:
    stand(HOT)
    assert gpus() == (Gpu("NVIDIA H100 80GB HBM3", "580.65.06", 81559, "9.0"),)
    stand({("Name",): "NVIDIA Thor"})  # its memory is the machine's
    assert gpus() == (Gpu("NVIDIA Thor", "580.65.06", None, ""),)


def test_a_driver_that_does_not_answer_is_no_gpu(stand: Any) -> None:
    stand({}, NVMLError("Driver/library version mismatch"))
    assert nvml_devices() == ((), "Driver/library version mismatch")
    stand({}, NVMLError("NVML Shared Library Not Found", Stand.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert nvml_devices() == ((), "")


def test_a_missing_package_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml_devices() == ((), "")


def test_the_package_has_every_name_that_is_used() -> None:
    real = importlib.import_module("pynvml")
    used = {f"nvmlDeviceGet{query}" for query, *_ in HOT}
    used |= {name for name in vars(Stand) if name.upper().startswith("NVML")}
    assert [name for name in sorted(used) if not hasattr(real, name)] == []
    for bit, name in enumerate(conditions.THROTTLE_REASONS, 1):
        assert getattr(real, f"nvmlClocksEventReason{name}") == 1 << bit
    with pytest.raises(real.NVMLError):
        real.nvmlDeviceGetCount()  # not initialised: the errors are of that type
