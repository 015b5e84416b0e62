"""Energy of a picture, where the machine has a sensor for it."""

from __future__ import annotations

from edgeseg.documents import Document


class Sensor(Document):
    """One that was read.

    Attributes:
        name: ``rapl package-0``, ``nvml NVIDIA H100``, ``ina3221 VDD_IN``.
        covers: What draws the power it counts.
        idle_w: Its mean reading before the run, at rest.
    """

    name: str
    covers: str
    idle_w: float | None = None


class EnergyMeter(Document):
    """The sensors whose readings add up to an engine's energy; ``reason`` where there is none."""

    sensors: tuple[Sensor, ...] = ()
    reason: str | None = None
