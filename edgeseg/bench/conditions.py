"""The state a machine is in: clocks, temperatures, throttling, power mode, load.

Read before and after the blocks are timed; a figure is worth little when the clock fell in
between.
"""

from __future__ import annotations

from datetime import datetime

from edgeseg.documents import Document


class Temperature(Document):
    """A sensor in °C, and from where on the machine slows down, None where it does not tell."""

    sensor: str
    celsius: float
    limit_c: float | None = None


class GpuState(Document):
    """One NVIDIA GPU; what its driver does not tell is None.

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


class Conditions(Document):
    """The machine at one moment; what it does not tell is None or empty.

    Attributes:
        at: When.
        cpu_mhz: Clock of each core.
        cpu_max_mhz: Highest clock of the hardware, the fastest core.
        cpu_cap_mhz: Highest clock allowed now.
        governors: Different frequency governors of the cores.
        temperatures: Thermal zones and sensors of processors.
        load_average: Processes that ran or waited, mean of the last minute (proc_loadavg(5)).
        cooling: Cooling devices that hold a processor back now.
        power_mode: Of a Jetson, as ``nvpmodel`` names it.
        jetson_clocks: Whether a Jetson's clocks are fixed at their highest.
        gpus: NVIDIA GPUs that NVML tells of.
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
    """What happened to the machine between two moments.

    Attributes:
        seconds: How long.
        other_cores: Mean cores kept busy by other processes, or other guests of the host.
        steal_share: Share of all cores' time that the host gave to other guests.
        throttle_events: How often a core or package was throttled (Intel, Jetson), None where
            the kernel does not count.
    """

    seconds: float
    other_cores: float
    steal_share: float | None = None
    throttle_events: int | None = None
