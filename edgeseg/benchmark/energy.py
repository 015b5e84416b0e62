"""Energy per picture, if the machine has sensors for it.

Three kinds of sensors: counters of the processor (RAPL, through the kernel's powercap files),
counters of NVIDIA GPUs (NVML), and the power monitors of Jetson boards
(INA3221, through hwmon), whose power is integrated over time. They count what the whole
package, GPU or board draws, not this process alone; so the reading at idle is stated beside it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from typing_extensions import Self

from edgeseg.artifacts.documents import Document
from edgeseg.benchmark.conditions import joules
from edgeseg.machine import NvmlDevice, nvml_devices, read_number, read_text

Meter = Callable[[], tuple[float, ...]]
"""Joules that each sensor has counted since it was opened."""

INPUT_RAILS = ("VDD_IN", "POM_5V_IN")
"""Labels of the rails that measure the total input power of a Jetson module."""

AGX_ORIN_RAILS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
"""Rails of a board without a total; the last of these also feeds ``VDDQ_VDD2_1V8AO``."""

SAMPLE_SECONDS = 0.02


def no_meter() -> tuple[float, ...]:
    """A :data:`Meter` without a sensor."""
    return ()


class Sensor(Document):
    """A sensor that was read.

    Attributes:
        name: ``rapl package-0``, ``nvml NVIDIA H100``, ``ina3221 VDD_IN``.
        covers: Hardware whose power it measures.
        idle_w: Mean reading in watts at rest, before the run.
    """

    name: str
    covers: str
    idle_w: float | None = None


class EnergyMeter(Document):
    """The sensors whose readings add up to an engine's energy; ``reason`` where there is none."""

    sensors: tuple[Sensor, ...] = ()
    reason: str | None = None


class Counter(Protocol):
    """Interface of a sensor used by :class:`Sensors`."""

    sensor: Sensor

    def joules(self) -> float:
        """Since it was opened; never less than before."""


class Sensors:
    """All sensors of a machine; closing them ends the sampling.

    Args:
        root: Where ``sys`` lies; another folder in tests.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        zones, locked = _rapl_zones(root)
        rails = _input_rails(root)
        self._sampler = PowerSampler(rails) if rails else None
        gpus = [NvmlCounter(device) for device in nvml_devices()[0] if joules(device) is not None]
        self._counters: list[Counter] = [*zones, *([self._sampler] if self._sampler else []), *gpus]
        why = f"no sensor: {locked[0]} needs root to be read" if locked else "no sensor"
        self.reason = None if self._counters else why
        self._idle: tuple[float | None, ...] = (None,) * len(self._counters)

    def joules(self) -> tuple[float, ...]:
        """A :data:`Meter`."""
        return tuple(counter.joules() for counter in self._counters)

    def watch_idle(self, seconds: float) -> None:
        """Note what each reads at rest, for so long; at once where there is none."""
        if not self._counters:
            return
        before, began = self.joules(), time.perf_counter()
        time.sleep(seconds)
        after, elapsed = self.joules(), time.perf_counter() - began
        self._idle = tuple(
            round((end - start) / elapsed, 3) for start, end in zip(before, after, strict=True)
        )

    @property
    def idle_w(self) -> float | None:
        """Power of all sensors at rest, in watts; None if it was not measured."""
        known = [watts for watts in self._idle if watts is not None]
        return sum(known) if known else None

    def meter(self) -> EnergyMeter:
        """The sensors and what they read at rest, for the document."""
        sensors = (
            counter.sensor.model_copy(update={"idle_w": idle})
            for counter, idle in zip(self._counters, self._idle, strict=True)
        )
        return EnergyMeter(sensors=tuple(sensors), reason=self.reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sampler:
            self._sampler.close()


class RaplCounter:
    """A zone of the kernel's powercap framework (``Documentation/power/powercap``).

    ``energy_uj`` counts microjoules up to ``max_energy_range_uj`` and begins again; at 100 W
    after 45 minutes or so, and it is read far more often than that.
    """

    def __init__(self, zone: Path, name: str) -> None:
        covers = "memory" if name.startswith("dram") else "processor package"
        self.sensor = Sensor(name=f"rapl {name}", covers=covers)
        self._file = zone / "energy_uj"
        self._range = read_number(zone / "max_energy_range_uj") or 0
        self._last = read_number(self._file) or 0
        self._total = 0

    def joules(self) -> float:
        """Since it was opened."""
        now = read_number(self._file)
        if now is not None:
            moved = now - self._last
            self._total += moved if moved >= 0 else max(0, moved + self._range)
            self._last = now
        return self._total / 1e6


def _rapl_zones(root: Path) -> tuple[list[RaplCounter], list[Path]]:
    """Packages and their memory, and the counters that this user may not read.

    Cores and graphics are parts of a package, ``psys`` holds it, and ``intel-rapl-mmio`` shows
    of the same package in another way; memory (``dram``) is counted apart.
    """
    found, locked = [], []
    for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        name = read_text(zone / "name").strip()
        if not re.match(r"package|dram", name) or not (zone / "energy_uj").exists():
            continue
        if read_number(zone / "energy_uj") is None:
            locked.append(zone / "energy_uj")
            continue
        package = read_text(zone.parent / zone.name.rpartition(":")[0] / "name").strip()
        found.append(RaplCounter(zone, f"dram of {package}" if name == "dram" else name))
    return found, locked


class NvmlCounter:
    """The energy counter of a GPU."""

    def __init__(self, device: NvmlDevice) -> None:
        self.sensor = Sensor(name=f"nvml {device.name}", covers="GPU board")
        self._device = device
        self._last = self._first = joules(device) or 0.0

    def joules(self) -> float:
        """Since it was opened."""
        now = joules(self._device)
        self._last = self._last if now is None else max(self._last, now)
        return self._last - self._first


@dataclass(frozen=True)
class Rail:
    """A channel of an INA3221: files of its voltage in mV and current in mA."""

    label: str
    millivolts: Path
    milliamperes: Path

    def watts(self) -> float | None:
        """Now; None where a reading fails."""
        voltage, current = read_number(self.millivolts), read_number(self.milliamperes)
        return None if voltage is None or current is None else voltage * current / 1e6


def _input_rails(root: Path) -> list[Rail]:
    """The rails that add up to what a Jetson draws (``Documentation/hwmon/ina3221``)."""
    rails = {}
    for folder in (root / "sys/bus/i2c/drivers").glob("ina3221*/*/hwmon/hwmon*"):
        for label in sorted(folder.glob("in[123]_label")):
            channel = label.name[2]
            rail = Rail(
                read_text(label).strip(),
                folder / f"in{channel}_input",
                folder / f"curr{channel}_input",
            )
            if rail.watts() is not None:
                rails[rail.label] = rail
    for whole in INPUT_RAILS:
        if whole in rails:
            return [rails[whole]]
    if all(name in rails for name in AGX_ORIN_RAILS):
        return [rails[name] for name in AGX_ORIN_RAILS]
    return []


class PowerSampler:
    """Integrates the power of rails over time in a thread that reads it 50 times per second.

    The thread takes a little of the processor that it measures: some readings of a file over
    I2C, a millisecond each.

    Args:
        clock: Seconds, monotonic; another in tests, which call :meth:`sample` themselves.
    """

    def __init__(self, rails: Sequence[Rail], clock: Callable[[], float] = time.monotonic) -> None:
        names = " + ".join(rail.label for rail in rails)
        self.sensor = Sensor(name=f"ina3221 {names}", covers="Jetson module")
        self._rails = rails
        self._clock = clock
        self._lock = threading.Lock()
        self._total = 0.0
        self._last = self._power(0.0), clock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power sampler", daemon=True)
        self._thread.start()

    def joules(self) -> float:
        """Since it was opened, up to now."""
        self.sample()
        return self._total

    def sample(self) -> None:
        """Read the rails once; between two readings the power is taken to move in a line."""
        with self._lock:
            before, then = self._last
            power, now = self._power(before), self._clock()
            self._total += (before + power) / 2 * (now - then)
            self._last = power, now

    def close(self) -> None:
        """End the thread; calling it twice is allowed."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.sample()

    def _power(self, otherwise: float) -> float:
        """Watts of all rails, ``otherwise`` where one cannot be read."""
        watts = [rail.watts() for rail in self._rails]
        known = [value for value in watts if value is not None]
        return sum(known) if len(known) == len(watts) else otherwise
