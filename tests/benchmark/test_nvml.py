"""GPU state through NVML: a stand-in for ``pynvml`` with one GPU, since tests have none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeseg.benchmark import nvml
from edgeseg.benchmark.nvml import GpuState, devices, gpu_states


class NVMLError(Exception):
    """What ``pynvml`` raises."""


class Stand:
    """``pynvml`` on a machine with one GPU; queries without an answer are not supported.

    Args:
        answers: Query without its prefix, with its argument where it takes one → the answer.
        start: What ``nvmlInit`` raises, if anything.
    """

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
    NVML_TEMPERATURE_GPU = 0
    NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1

    def __init__(self, answers: dict[Any, Any], start: Exception | None = None) -> None:
        self._answers = answers
        self._start = start

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        if self._start:
            raise self._start

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
    (state,) = gpu_states()
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
    assert devices()[0].joules() == (2**33 + 500) / 1000


def test_unsupported_queries_give_none(stand: Any) -> None:
    stand({("Temperature", 0): 41})
    (device,) = devices()
    assert device.joules() is None
    assert device.state() == GpuState(name="NVIDIA GPU", temperature_c=41)


def test_a_driver_that_does_not_answer_is_no_gpu(stand: Any) -> None:
    stand({}, NVMLError("Driver/library version mismatch"))
    assert devices() == ()


def test_a_missing_package_is_reported_once_and_only_where_there_is_a_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(nvml, "DRIVER", tmp_path / "version")
    nvml._warn_once.cache_clear()
    assert devices() == ()
    assert caplog.messages == []
    (tmp_path / "version").write_text("NVRM version: 580.65")
    assert (devices(), devices()) == ((), ())
    (message,) = caplog.messages
    assert message.endswith("pip install nvidia-ml-py")


def test_the_package_has_every_name_that_is_used() -> None:
    real = pytest.importorskip("pynvml", reason="pip install nvidia-ml-py")
    used = {f"nvmlDeviceGet{query}" for query, *_ in HOT}
    used |= {name for name in vars(Stand) if name.upper().startswith("NVML")}
    assert [name for name in sorted(used) if not hasattr(real, name)] == []
    for bit, name in enumerate(nvml.THROTTLE_REASONS, 1):
        assert getattr(real, f"nvmlClocksEventReason{name}") == 1 << bit
    with pytest.raises(real.NVMLError):
        real.nvmlDeviceGetCount()  # not initialised: the errors are of that type
