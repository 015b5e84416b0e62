"""State of the machine: clocks, temperatures, throttling, power mode, load.

Read from the kernel's files, before and after the blocks are timed; a figure is worth little
when the clock fell in between. Every reader gives None or nothing where the machine does not
tell. The files are those of the kernel's documentation: ``admin-guide/pm/cpufreq``,
``driver-api/thermal/sysfs-api``, ``hwmon/sysfs-interface``, proc_stat(5); of a Jetson
``/var/lib/nvpmodel/status`` and the counters of its over-current events.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from edgeseg.artifacts.documents import Document
from edgeseg.machine import NvmlDevice, nvml_devices, read_number, read_text

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


class OtherLoad:
    """Processor time used by others since this object was created (``/proc/stat``)."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._busy = busy_seconds(read_text(stat))
        self._own = time.process_time()
        self._began = time.perf_counter()

    def cores(self) -> float:
        """Mean number of cores that other processes, or other guests of the host, kept busy."""
        busy = busy_seconds(read_text(self._stat)) - self._busy
        own = time.process_time() - self._own
        elapsed = time.perf_counter() - self._began
        return max(0.0, (busy - own) / elapsed) if elapsed > 0 else 0.0


def busy_seconds(stat: str) -> float:
    """Seconds all cores together were busy since the machine started, stolen time included.

    Args:
        stat: The text of ``/proc/stat`` (proc(5)); 0 where it is empty.
    """
    fields = [int(value) for value in (stat.splitlines() or [""])[0].split()[1:]]
    if len(fields) < 8:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal")
"""Drivers under ``/sys/class/hwmon`` whose temperatures are a processor's."""

PROCESSOR_COOLING = re.compile(r"processor|cpufreq|devfreq|cpu-|gpu-|intel_powerclamp", re.I)
"""Types of cooling devices that slow a processor down; a fan does not."""


class Temperature(Document):
    """A temperature in °C, and the limit at which the machine slows down, or None if unknown."""

    sensor: str
    celsius: float
    limit_c: float | None = None

    @property
    def at_limit(self) -> bool:
        """Whether the machine slows down, or will in a moment."""
        return self.limit_c is not None and self.celsius >= self.limit_c


class Conditions(Document):
    """State of the machine at one moment; unavailable values are None or empty.

    Attributes:
        at: Time of the reading.
        cpu_mhz: Clock of each core.
        cpu_max_mhz: Highest clock of the hardware, the fastest core.
        cpu_cap_mhz: Highest clock allowed now.
        governors: Different frequency governors of the cores.
        temperatures: Thermal zones, and sensors of processors.
        load_average: Processes that ran or waited, mean of the last minute (proc_loadavg(5)).
        cooling: Cooling devices that hold a processor back now.
        power_mode: Power mode of a Jetson, as ``nvpmodel`` names it.
        jetson_clocks: Whether a Jetson's CPU clocks are fixed, e.g. by ``jetson_clocks``.
        gpus: NVIDIA GPUs that NVML reports.
    """

    at: datetime
    cpu_mhz: tuple[float, ...] = ()
    cpu_max_mhz: float | None = None
    cpu_cap_mhz: float | None = None
    governors: tuple[str, ...] = ()
    temperatures: tuple[Temperature, ...] = ()
    load_average: float | None = None
    cooling: tuple[str, ...] = ()
    power_mode: str | None = None
    jetson_clocks: bool | None = None
    gpus: tuple[GpuState, ...] = ()


class During(Document):
    """Load and throttling of the machine between two moments.

    Attributes:
        other_cores: Mean cores kept busy by other processes, or other guests of the host.
        steal_share: Share of all cores' time that the host gave to other guests.
        throttle_events: How often a core, a package or a Jetson's power rail was throttled,
            None where the kernel does not count.
    """

    seconds: float
    other_cores: float = 0.0
    steal_share: float | None = None
    throttle_events: int | None = None


def read_conditions(root: Path = Path("/")) -> Conditions:
    """The state of the machine whose ``proc``, ``sys``, ``etc`` and ``var`` lie below ``root``."""
    cpus = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"), key=_natural)
    governors = {read_text(cpu / "scaling_governor").strip() for cpu in cpus} - {""}
    return Conditions(
        at=datetime.now(timezone.utc),
        cpu_mhz=tuple(_megahertz(cpus, "scaling_cur_freq")) or _cpuinfo_mhz(root),
        cpu_max_mhz=max(_megahertz(cpus, "cpuinfo_max_freq"), default=None),
        cpu_cap_mhz=max(_megahertz(cpus, "scaling_max_freq"), default=None),
        governors=tuple(sorted(governors)),
        temperatures=(*_zones(root / "sys/class/thermal"), *_sensors(root / "sys/class/hwmon")),
        load_average=_load_average(root),
        cooling=tuple(_cooling(root / "sys/class/thermal")),
        power_mode=_power_mode(root),
        jetson_clocks=_clocks_fixed(cpus) if _is_jetson(root) else None,
        gpus=tuple(map(gpu_state, nvml_devices()[0])),
    )


class ConditionsWatch:
    """Watches load and throttling from now on, by the kernel's counters."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._began = time.perf_counter()
        self._load = OtherLoad(root / "proc/stat")
        self._ticks = _ticks(root)
        self._throttled = _throttle_count(root)

    def during(self) -> During:
        """Load and throttling from the start of the watch until now."""
        ticks, throttled = _ticks(self._root), _throttle_count(self._root)
        share = None
        if ticks and self._ticks and ticks[0] > self._ticks[0]:
            share = round((ticks[1] - self._ticks[1]) / (ticks[0] - self._ticks[0]), 4)
        events = None
        if throttled is not None and self._throttled is not None:
            events = throttled - self._throttled
        return During(
            seconds=round(time.perf_counter() - self._began, 3),
            other_cores=round(self._load.cores(), 3),
            steal_share=share,
            throttle_events=events,
        )


def _natural(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", str(path))))


def _megahertz(cpus: list[Path], name: str) -> Iterator[float]:
    """Frequencies in MHz of the cores that report them; the kernel's files hold kHz."""
    for cpu in cpus:
        kilohertz = read_number(cpu / name)
        if kilohertz is not None:
            yield kilohertz / 1000


def _cpuinfo_mhz(root: Path) -> tuple[float, ...]:
    """Core clocks from ``/proc/cpuinfo`` on x86, for virtual machines without cpufreq."""
    found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", read_text(root / "proc/cpuinfo"), re.MULTILINE)
    return tuple(map(float, found))


def _zones(thermal: Path) -> Iterator[Temperature]:
    """Thermal zones; the limit is the lowest trip point at which the machine slows down."""
    for zone in sorted(thermal.glob("thermal_zone*"), key=_natural):
        now = read_number(zone / "temp")
        if now is None:
            continue
        limits = [
            limit / 1000
            for trip in zone.glob("trip_point_*_type")
            if read_text(trip).strip() in ("passive", "hot", "critical")
            and (limit := read_number(trip.with_name(trip.name.replace("_type", "_temp"))))
            and limit > 0
        ]
        name = read_text(zone / "type").strip() or zone.name
        yield Temperature(sensor=name, celsius=now / 1000, limit_c=min(limits, default=None))


def _sensors(hwmon: Path) -> Iterator[Temperature]:
    """Temperatures of processors; the limit is ``max`` where there is one, else ``crit``."""
    for chip in sorted(hwmon.glob("hwmon*"), key=_natural):
        driver = read_text(chip / "name").strip()
        if driver not in PROCESSOR_SENSORS:
            continue
        for file in sorted(chip.glob("temp*_input"), key=_natural):
            now = read_number(file)
            if now is None:
                continue
            of = file.name.removesuffix("_input")
            limit = read_number(chip / f"{of}_max") or read_number(chip / f"{of}_crit")
            label = read_text(chip / f"{of}_label").strip() or of
            yield Temperature(
                sensor=f"{driver} {label}",
                celsius=now / 1000,
                limit_c=limit / 1000 if limit and limit > 0 else None,
            )


def _cooling(thermal: Path) -> Iterator[str]:
    for device in sorted(thermal.glob("cooling_device*"), key=_natural):
        kind = read_text(device / "type").strip()
        state = read_number(device / "cur_state")
        if state and state > 0 and PROCESSOR_COOLING.search(kind):
            yield f"{kind} at {state} of {read_number(device / 'max_state')}"


def _load_average(root: Path) -> float | None:
    match = re.match(r"([\d.]+) ", read_text(root / "proc/loadavg"))
    return float(match[1]) if match else None


def _is_jetson(root: Path) -> bool:
    board = read_text(root / "proc/device-tree/model")
    return "Jetson" in board or bool(read_text(root / "etc/nv_tegra_release"))


def _power_mode(root: Path) -> str | None:
    """``15W`` of ``pmode:0000`` and ``< POWER_MODEL ID=0 NAME=15W >``; the number without names."""
    status = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status"))
    if not status:
        return None
    number = int(status[1])
    named = re.search(
        rf"<\s*POWER_MODEL\s+ID={number}\s+NAME=(\S+)", read_text(root / "etc/nvpmodel.conf")
    )
    return named[1] if named else str(number)


def _clocks_fixed(cpus: list[Path]) -> bool | None:
    lowest = list(_megahertz(cpus, "scaling_min_freq"))
    highest = list(_megahertz(cpus, "scaling_max_freq"))
    return lowest == highest if lowest and highest else None


def _ticks(root: Path) -> tuple[int, int] | None:
    """Ticks of all cores since the machine started, and those of them that were stolen."""
    fields = (read_text(root / "proc/stat").splitlines() or [""])[0].split()[1:]
    values = [int(value) for value in fields[:8] if value.isdecimal()]
    return (sum(values), values[7]) if len(values) == 8 else None


def _throttle_count(root: Path) -> int | None:
    """Events that the kernel counts; each core reports those of its package, counted once."""
    cores = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")
    counts, packages = [], []
    for core in cores:
        counts.append(read_number(core / "core_throttle_count"))
        packages.append(read_number(core / "package_throttle_count"))
    rails = (root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")
    counts += [read_number(rail) for rail in rails]
    known = [count for count in counts if count is not None]
    known += [max(count for count in packages if count is not None)] if any(packages) else []
    return sum(known) if known else None
