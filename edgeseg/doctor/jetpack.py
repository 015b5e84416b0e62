"""Contents of JetPack releases, taken from these documents and not checked on a Jetson.

- JetPack ↔ Jetson Linux: https://developer.nvidia.com/embedded/jetpack-archive
- 6.0 (CUDA 12.2, TensorRT 8.6, OpenCV 4.8): RidgeRun, "NVIDIA Jetpack 6 Components"
- 6.1, 6.2 (CUDA 12.6, TensorRT 10.3): https://pytorch.org/TensorRT/getting_started/jetpack.html
- 7 (CUDA 13.0, from 7.2 13.2 and Orin too): TensorRT Edge-LLM, "Official Support Matrix"
- DLA: TensorRT 11.4.1, "Working with DLA" and "Migrating from 10.x to 11.x on Jetson/JetPack"
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.doctor.facts import JetsonFacts, SystemFacts, numbers


@dataclass(frozen=True)
class JetPack:
    """A JetPack release; ``tensorrt`` is None if its documents name no version."""

    name: str
    cuda: tuple[int, int]
    python: tuple[int, int]
    tensorrt: tuple[int, int] | None


_FIVE, _SIX, _SEVEN = (3, 8), (3, 10), (3, 12)
RELEASES: dict[tuple[int, ...], JetPack] = {
    (35,): JetPack("5", (11, 4), _FIVE, (8, 5)),
    (35, 1): JetPack("5.0.2", (11, 4), _FIVE, (8, 4)),
    (35, 4, 1): JetPack("5.1.2", (11, 4), _FIVE, (8, 5)),
    (36,): JetPack("6", (12, 6), _SIX, (10, 3)),
    (36, 3): JetPack("6.0", (12, 2), _SIX, (8, 6)),
    (36, 4, 0): JetPack("6.1", (12, 6), _SIX, (10, 3)),
    (36, 4, 3): JetPack("6.2", (12, 6), _SIX, (10, 3)),
    (36, 4, 4): JetPack("6.2.1", (12, 6), _SIX, (10, 3)),
    (38,): JetPack("7", (13, 0), _SEVEN, (10, 13)),
    (38, 2): JetPack("7.0", (13, 0), _SEVEN, (10, 13)),
    (38, 4): JetPack("7.1", (13, 0), _SEVEN, None),
    (39,): JetPack("7.2", (13, 2), _SEVEN, None),
}
"""Jetson Linux (L4T) version prefix → JetPack; the longest match wins."""


def jetpack(jetson: JetsonFacts) -> JetPack | None:
    """Return the JetPack release of a Jetson; None if it is not listed."""
    release = jetson.l4t
    prefixes = (release[:count] for count in range(len(release), 0, -1))
    return next((RELEASES[prefix] for prefix in prefixes if prefix in RELEASES), None)


def jetson_name(jetson: JetsonFacts) -> str:
    """Describe a Jetson: ``JetPack 6.2 (L4T 36.4.3), NVIDIA Jetson …``."""
    known = jetpack(jetson)
    release = ".".join(map(str, jetson.l4t))
    name = f"JetPack {known.name}" if known else "an unknown JetPack"
    return f"{name} (L4T {release})" + (f", {jetson.board}" if jetson.board else "")


def dla_in(tensorrt: str) -> bool:
    """Whether this TensorRT supports the DLA of a Jetson: up to 10.7, and from 11.4.1."""
    version = numbers(tensorrt, 3)
    return version[:2] <= (10, 7) or version >= (11, 4, 1)


def python_of(facts: SystemFacts) -> tuple[int, int] | None:
    """Return the Python version that the modules of JetPack were built for."""
    known = jetpack(facts.jetson) if facts.jetson else None
    return known.python if known else None
