"""The pictures and ranges that a build uses for calibration and for the gate."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts.documents import load
from edgeseg.building.fp32 import Fp32Network, artifact_name
from edgeseg.console import Track
from edgeseg.data.folders import Split, read_split
from edgeseg.data.selection import spread
from edgeseg.errors import ArtifactError, UsageError
from edgeseg.options.building import BuildConfig
from edgeseg.precision.ranges import Ranges, check_ranges, measure_extremes

logger = logging.getLogger(__name__)

OVERFLOW_PICTURES = 64
"""Pictures of ``--data`` checked for overflow if there is no calibration."""


@dataclass(frozen=True)
class Evidence:
    """Calibration data of a network.

    ``ranges`` is None if it was not calibrated; ``pictures`` are those of the calibration set
    if it is on this machine.
    """

    ranges: Ranges | None
    pictures: Sequence[Path]


def read_evidence(network: Fp32Network, config: BuildConfig) -> Evidence:
    """Read the ranges and find their pictures.

    INT8 requires ranges. FP16 does not, so stale ones are ignored.

    Raises:
        UsageError: The precision is INT8 and there are no ranges.
        ArtifactError: The precision is INT8 and the ranges are damaged or of another network.
    """
    path = config.ranges or network.path.with_name(artifact_name(network.path, "ranges", "json"))
    needed = config.precision == "int8" and config.foreign is None
    if not path.exists():
        if needed:
            raise UsageError(
                f"INT8 needs measured ranges, and there is no {path}",
                hint=f"edgeseg calibrate {network.path} --from DIR (or a video, or camera:0)",
            )
        return Evidence(None, [])
    try:
        ranges = load(Ranges, path)
        return Evidence(ranges, check_ranges(ranges, path, network.path))
    except ArtifactError as error:
        if needed:
            raise
        logger.warning("no calibration pictures for the gate: %s", error)
        return Evidence(None, [])


def gate_pictures(config: BuildConfig, evidence: Evidence) -> Split | Sequence[Path]:
    """Pictures for the gate: labelled ones if available, else calibration pictures, if any."""
    if config.data is not None:
        return read_split(config.data, config.split)
    return evidence.pictures


def overflow_pictures(config: BuildConfig, evidence: Evidence) -> Sequence[Path]:
    """Pictures to check for overflow: the calibration set, or a sample of ``--data``, or none."""
    if evidence.pictures or config.data is None:
        return evidence.pictures
    samples = read_split(config.data, config.split).samples
    return [samples[index].image for index in spread(len(samples), OVERFLOW_PICTURES, seed=0)]


def extremes(
    network: Fp32Network, config: BuildConfig, evidence: Evidence, track: Track
) -> Mapping[str, tuple[float, float]] | None:
    """Lowest and highest value of each activation; None if there are no pictures.

    Ranges of the method ``minmax`` are used as they are; the other methods clip the outliers
    that overflow, so the network is measured again.

    Raises:
        NonFiniteOutput: An activation of the FP32 network holds NaN or infinity.
    """
    if evidence.ranges is not None and evidence.ranges.method == "minmax":
        return evidence.ranges.ranges
    pictures = overflow_pictures(config, evidence)
    return measure_extremes(network.path, pictures, track) if pictures else None
