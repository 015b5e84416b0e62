"""The machine's state, on trees as the kernel's documentation describes them."""

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from edgeseg.benchmark import conditions
from edgeseg.benchmark.conditions import (
    Conditions,
    ConditionsWatch,
    During,
    GpuState,
    Temperature,
    read_conditions,
)
from edgeseg.benchmark.rows import disturbed_machine

CPU = "sys/devices/system/cpu"
# admin-guide/pm/cpufreq.rst (kHz), driver-api/thermal/sysfs-api.rst and hwmon/coretemp.rst
# (thousandths of a degree), and Intel's counters of admin-guide/pm.
DESKTOP = {
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "4700123",
    f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq": "5000000",
    f"{CPU}/cpu0/cpufreq/scaling_max_freq": "4800000",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave",
    f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "800000",
    f"{CPU}/cpu1/cpufreq/cpuinfo_max_freq": "5000000",
    f"{CPU}/cpu1/cpufreq/scaling_max_freq": "4800000",
    f"{CPU}/cpu1/cpufreq/scaling_governor": "performance",
    f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "3",
    f"{CPU}/cpu0/thermal_throttle/package_throttle_count": "10",
    f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "4",
    f"{CPU}/cpu1/thermal_throttle/package_throttle_count": "10",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone0/temp": "71000",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "0",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "active",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "40000",
    "sys/class/thermal/thermal_zone0/trip_point_2_type": "critical",
    "sys/class/thermal/thermal_zone0/trip_point_2_temp": "105000",
    "sys/class/hwmon/hwmon2/name": "coretemp",
    "sys/class/hwmon/hwmon2/temp1_label": "Package id 0",
    "sys/class/hwmon/hwmon2/temp1_input": "72000",
    "sys/class/hwmon/hwmon2/temp1_max": "100000",
    "sys/class/hwmon/hwmon2/temp1_crit": "110000",
    "sys/class/hwmon/hwmon0/name": "nvme",
    "sys/class/hwmon/hwmon0/temp1_input": "30000",
    "proc/loadavg": "1.52 1.10 0.80 3/812 4711",
    "proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0",
}
# What L4T 36 shows: the mode that nvpmodel keeps, its table, and counters of power events.
ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "var/lib/nvpmodel/status": "pmode:0001",
    "etc/nvpmodel.conf": (
        "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=7W >\n"
    ),
    f"{CPU}/cpu0/cpufreq/scaling_min_freq": "729600",
    f"{CPU}/cpu0/cpufreq/scaling_max_freq": "1510400",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "99500",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "99000",
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": "3",
    "sys/class/thermal/cooling_device0/max_state": "3",
    "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0",
    "sys/class/thermal/cooling_device1/cur_state": "2",
    "sys/class/thermal/cooling_device1/max_state": "21",
    "sys/class/thermal/cooling_device2/type": "devfreq-17000000.gpu",
    "sys/class/thermal/cooling_device2/cur_state": "0",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "37",
}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "nvml_devices", lambda: ((), ""))


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def test_a_desktop_tells_clocks_heat_and_load(tmp_path: Path) -> None:
    found = read_conditions(plant(tmp_path, DESKTOP))
    assert found.cpu_mhz == (4700.123, 800)
    assert (found.cpu_max_mhz, found.cpu_cap_mhz) == (5000, 4800)
    assert found.governors == ("performance", "powersave")
    assert found.temperatures == (
        Temperature(sensor="x86_pkg_temp", celsius=71, limit_c=105),
        Temperature(sensor="coretemp Package id 0", celsius=72, limit_c=100),
    )
    assert found.load_average == 1.52
    assert (found.cooling, found.power_mode, found.jetson_clocks) == ((), None, None)


def test_a_jetson_tells_its_mode_and_what_holds_it_back(tmp_path: Path) -> None:
    found = read_conditions(plant(tmp_path, ORIN))
    assert found.power_mode == "7W"
    assert found.jetson_clocks is False
    assert found.cooling == ("cpufreq-cpu0 at 2 of 21",)
    assert [heat.at_limit for heat in found.temperatures] == [True]
    plant(tmp_path, {f"{CPU}/cpu0/cpufreq/scaling_min_freq": "1510400"})
    assert read_conditions(tmp_path).jetson_clocks is True
    (tmp_path / "etc/nvpmodel.conf").unlink()
    assert read_conditions(tmp_path).power_mode == "1"


def test_a_virtual_machine_tells_its_clock_in_cpuinfo(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/cpuinfo": "processor\t: 0\ncpu MHz\t\t: 2445.426\n" * 2})
    assert read_conditions(tmp_path).cpu_mhz == (2445.426, 2445.426)


def test_a_machine_that_tells_nothing_is_read_all_the_same(tmp_path: Path) -> None:
    found = read_conditions(tmp_path)
    assert found == Conditions(at=found.at)
    assert ConditionsWatch(tmp_path).during().throttle_events is None
    assert ConditionsWatch(tmp_path).during().steal_share is None


def test_steal_time_is_a_share_of_what_passed(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/stat": "cpu  100 0 100 800 0 0 0 50 0 0"})
    watch = ConditionsWatch(tmp_path)
    # proc_stat(5): 300 ticks more, of them 30 stolen; guest time is counted in user already.
    plant(tmp_path, {"proc/stat": "cpu  200 0 120 950 0 0 0 80 100 0"})
    assert watch.during().steal_share == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (DESKTOP, {f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "6"}, 2),
        # A package's count is the same file for each of its cores.
        (
            DESKTOP,
            {
                f"{CPU}/cpu0/thermal_throttle/package_throttle_count": "15",
                f"{CPU}/cpu1/thermal_throttle/package_throttle_count": "15",
            },
            5,
        ),
        (ORIN, {"sys/class/hwmon/hwmon3/oc3_event_cnt": "40"}, 3),
        (DESKTOP, {}, 0),
    ],
)
def test_throttling_is_counted(
    tmp_path: Path, before: dict[str, str], after: dict[str, str], events: int
) -> None:
    watch = ConditionsWatch(plant(tmp_path, before))
    plant(tmp_path, after)
    assert watch.during().throttle_events == events


def state(**more: Any) -> Conditions:
    return Conditions(at=datetime(2026, 1, 1, tzinfo=timezone.utc), **more)


STILL = state(
    cpu_mhz=(4000, 800),
    cpu_cap_mhz=5000,
    temperatures=(Temperature(sensor="cpu", celsius=70, limit_c=100),),
    gpus=(GpuState(name="H100", throttle=("ApplicationsClocksSetting",)),),
)

QUIET = During(seconds=10, other_cores=0.1, steal_share=0.004, throttle_events=0)


def test_a_machine_that_stood_still_is_not_noisy() -> None:
    cooler = STILL.model_copy(update={"cpu_mhz": (800.0, 3900.0)})
    assert list(disturbed_machine(STILL, QUIET, cooler)) == []


@pytest.mark.parametrize(
    ("change", "during", "says"),
    [
        ({}, {"steal_share": 0.05}, "gave 5.0% of the processor's time"),
        ({}, {"throttle_events": 7}, "throttled 7 times"),
        ({"cooling": ("cpufreq-cpu0 at 2 of 21",)}, {}, "cpufreq-cpu0 at 2 of 21"),
        (
            {"temperatures": (Temperature(sensor="cpu", celsius=100, limit_c=100),)},
            {},
            "cpu reached 100 °C, its limit is 100 °C",
        ),
        ({"cpu_mhz": (3000.0, 800.0)}, {}, "4000 MHz before, 3000 MHz after"),
        ({"cpu_cap_mhz": 4999.0}, {}, "highest clock allowed 5000 MHz before, 4999 MHz after"),
        ({"gpus": (GpuState(name="H100", throttle=("SwPowerCap",)),)}, {}, "throttled: SwPowerCap"),
    ],
)
def test_each_disturbance_is_said(
    change: dict[str, object], during: dict[str, object], says: str
) -> None:
    after, meanwhile = STILL.model_copy(update=change), QUIET.model_copy(update=during)
    (sentence,) = disturbed_machine(STILL, meanwhile, after)
    assert says in sentence
