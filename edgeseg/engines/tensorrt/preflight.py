"""Check whether an engine can run on this machine before TensorRT reads it.

TensorRT refuses an engine of another version or GPU with a line about a version tag, and some
it does not refuse at all. The side-car says what an engine was made for; :func:`check` holds
that against the machine and says what was found, what is needed, and the command that builds the
engine again. What each row rests on:

* TensorRT: "engines are not portable" between versions, platforms and GPU models, unless built
  for hardware compatibility ("Version Compatibility" and "Hardware Compatibility" in NVIDIA's
  developer guide). A GPU of the same compute capability and another model is refused for the same
  reason that the level ``same`` exists.
* TensorRT-RTX: an engine belongs to one version of the library. It runs on the targets it was
  compiled for; with none, on those of Ampere (8.0) and later. The list of what that includes is
  the library's: above 8.0 it has the last word.
"""

from __future__ import annotations

import logging
import platform
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.artifacts import sidecar as sidecars
from edgeseg.artifacts.sidecar import SideCar
from edgeseg.engines.cuda import DeviceFacts
from edgeseg.errors import MismatchedArtifact

logger = logging.getLogger(__name__)

RTX_HEADER_BYTES = 64
RTX_MAGIC = b"vtrt"

_VERSION_AT = 24  # Four bytes of the header of an RTX engine.
_AMPERE = (8, 0)

# Key of ``build_options`` → option of `edgeseg build`.
_OPTIONS = {
    "batch": "--batch",
    "sizes": "--sizes",
    "workspace_mib": "--workspace",
    "optimisation_level": "--optimisation-level",
    "hardware_compatibility": "--hardware-compatibility",
    "dla_core": "--dla",
}


@dataclass(frozen=True)
class Host:
    """This machine: the version of the engine's runtime, the GPU, and the platform."""

    version: str
    gpu: DeviceFacts
    platform: str = f"{platform.system().lower()} {platform.machine()}"


@dataclass(frozen=True)
class Mismatch:
    """Why an engine cannot run: what it was made for, what was found, and the remedy."""

    made_for: str
    found: str
    targets: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EngineFile:
    """An engine as it was read, once: the very bytes that its side-car vouches for."""

    path: Path
    data: bytes = field(repr=False)
    sidecar: SideCar

    @classmethod
    def read(cls, path: Path) -> EngineFile:
        """Read and check the file at ``path``; raises as ``sidecar.verified_bytes``."""
        return cls(path, *sidecars.verified_bytes(path))


def check(engine: EngineFile, host: Host) -> None:
    """Refuse an engine that was made for something else.

    Args:
        engine: The engine file that was read.

    Raises:
        MismatchedArtifact: With what it was made for, what is here, and the rebuild command.
    """
    found = mismatch(engine.sidecar, engine.data[:RTX_HEADER_BYTES], host)
    if found is not None:
        raise MismatchedArtifact(
            f"{engine.path} was built for {found.made_for}, and this is {found.found}",
            hint=rebuild_command(engine.path, engine.sidecar, found.targets),
        )


def mismatch(sidecar: SideCar, header: bytes, host: Host) -> Mismatch | None:
    """The first reason in the order in which they are worth knowing, None where it fits."""
    if sidecar.platform is not None and sidecar.platform != host.platform:
        return Mismatch(sidecar.platform, host.platform)
    name = "TensorRT-RTX" if sidecar.runtime == "tensorrt-rtx" else "TensorRT"
    if not _versions_fit(sidecar, host.version):
        return Mismatch(f"{name} {sidecar.runtime_version}", f"{name} {host.version}")
    if sidecar.runtime == "tensorrt-rtx":
        return _rtx_header(sidecar, header) or _rtx_targets(sidecar, host.gpu)
    return _tensorrt_gpu(sidecar, host.gpu)


def rebuild_command(engine: Path, sidecar: SideCar, targets: tuple[str, ...] | None = None) -> str:
    """``edgeseg build`` with the options that the engine was built with, and other targets."""
    words = ["edgeseg", "build", str(engine.with_name(f"{_stem(engine)}.onnx"))]
    words += [f"--{sidecar.card.precision}", "--runtime", sidecar.runtime]
    for target in sidecar.targets if targets is None else targets:
        words += ["--target", target]
    for key, option in _OPTIONS.items():
        value = sidecar.build_options.get(key)
        # A fixed batch is the network's own.
        if value is not None and not (key == "batch" and ":" not in str(value)):
            words += [option, str(value)]
    for key in ("tf32", "gpu_fallback"):
        if sidecar.build_options.get(key) is False:
            words.append(f"--no-{key.replace('_', '-')}")
    return shlex.join((*words, "--overwrite"))


def warn_if_stale(engine: Path, sidecar: SideCar) -> None:
    """Say so where the network beside the engine is not the one it was built from.

    A warning and no refusal: the engine is whole and does what it did yesterday, and an edge
    device that comes up again must not stop for a newer file beside it. Side-cars are compared,
    so that nothing is read but them.
    """
    wanted = sidecar.onnx_sha256
    for path in _parents(engine, sidecar):
        parent = sidecars.read(path)
        if wanted is None or parent is None:
            return
        if parent.artifact_sha256 != wanted:
            logger.warning(
                "%s was built from another %s than the one beside it; build it again: %s",
                engine,
                path.name,
                rebuild_command(engine, sidecar),
            )
            return
        wanted = parent.onnx_sha256


def twin(engine: Path, sidecar: SideCar) -> Path:
    """The ONNX network of the same precision, which runs anywhere."""
    precision = sidecar.card.precision
    middle = "" if precision == "fp32" else f".{precision}"
    return engine.with_name(f"{_stem(engine)}{middle}.onnx")


def _stem(engine: Path) -> str:
    return engine.name.split(".", maxsplit=1)[0]


def _parents(engine: Path, sidecar: SideCar) -> list[Path]:
    """The graph that was compiled, then the network that it was made from."""
    network = engine.with_name(f"{_stem(engine)}.onnx")
    if sidecar.card.precision == "fp32":
        return [network]
    middle = {"fp16": "fp16", "int8": "int8.tensorrt"}[sidecar.card.precision]
    return [engine.with_name(f"{_stem(engine)}.{middle}.onnx"), network]


def _versions_fit(sidecar: SideCar, here: str) -> bool:
    """Equal as far as both are stated: Python packages differ in whether they name the build."""
    made, found = _numbers(sidecar.runtime_version), _numbers(here)
    if sidecar.build_options.get("version_compatible") is True:
        return made[0] == found[0] and made <= found
    return all(a == b for a, b in zip(made, found, strict=False))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)) or (0,)


def _rtx_header(sidecar: SideCar, header: bytes) -> Mismatch | None:
    """The version in the engine itself: a side-car that was written for it proves nothing."""
    if len(header) < RTX_HEADER_BYTES or not header.startswith(RTX_MAGIC):
        return Mismatch("TensorRT-RTX by what its side-car says", "no engine of it")
    inside = tuple(header[_VERSION_AT : _VERSION_AT + 4])
    stated = _numbers(sidecar.runtime_version)
    if any(a != b for a, b in zip(stated, inside, strict=False)):
        inside_version = ".".join(map(str, inside))
        return Mismatch(
            f"TensorRT-RTX {inside_version} by its own header",
            f"the side-car of one for {sidecar.runtime_version}",
        )
    return None


def _rtx_targets(sidecar: SideCar, gpu: DeviceFacts) -> Mismatch | None:
    here = f"{gpu.name}, {gpu.target}"
    if sidecar.targets:
        if gpu.target in sidecar.targets:
            return None
        return Mismatch(", ".join(sidecar.targets), here, (*sidecar.targets, gpu.target))
    if gpu.compute_capability < _AMPERE:
        return Mismatch("GPUs of sm_80 and later", here, (gpu.target,))
    return None


def _tensorrt_gpu(sidecar: SideCar, gpu: DeviceFacts) -> Mismatch | None:
    level = sidecar.build_options.get("hardware_compatibility", "none")
    here = f"{gpu.name}, {gpu.target}"
    made_on = sidecar.compute_capability
    if made_on is None or not re.fullmatch(r"sm_\d+", made_on):
        made_on = None  # NVML of a Jetson does not report it.
    if level == "ampere+":
        fits = gpu.compute_capability >= _AMPERE
        return None if fits else Mismatch("GPUs of sm_80 and later", here)
    other = made_on not in (None, gpu.target)
    if level != "same" and sidecar.gpu is not None:
        other = other or _model(sidecar.gpu) != _model(gpu.name)
    if not other:
        return None
    return Mismatch(", ".join(filter(None, [sidecar.gpu, made_on])), here)


def _model(name: str) -> str:
    """``Orin (nvgpu)`` of NVML is CUDA's ``Orin``."""
    return re.sub(r"\s*\(.*\)$", "", name)
