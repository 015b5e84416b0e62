"""Choose the runtime to build for if none is named, and explain the choice.

Nothing heavy is imported to decide: a library counts as present where Python would find it,
a GPU where the driver has made its device file.
"""

from __future__ import annotations

import importlib.util
import logging
import platform
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts.sidecar import BuildRuntime
from edgeseg.errors import RuntimeMissing

logger = logging.getLogger(__name__)

GPU_FILES = ("nvidiactl", "nvhost-gpu", "nvgpu")
"""Device files in ``/dev`` of NVIDIA's drivers for PCs and servers, and for Jetsons."""

WSL_DRIVER = Path("/usr/lib/wsl/lib/libcuda.so.1")
"""Windows' NVIDIA driver inside WSL 2, which has ``/dev/dxg`` alone: CUDA on WSL User Guide."""

CUDA_MODULES = ("cuda.bindings", "pycuda")
MODULES = ("tensorrt", "tensorrt_rtx", *CUDA_MODULES, "openvino", "onnxruntime")


@dataclass(frozen=True)
class Here:
    """Properties of this machine that decide on the runtime."""

    modules: frozenset[str]
    gpu: bool
    x86: bool


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime, whether it can run networks on this machine, and the reason as a clause."""

    runtime: BuildRuntime
    runs: bool
    reason: str


def probe_machine(devices: Path = Path("/dev"), wsl_driver: Path = WSL_DRIVER) -> Here:
    """Inspect this machine; tests pass other paths of device files and driver."""
    in_wsl = (devices / "dxg").exists() and wsl_driver.exists()
    return Here(
        modules=frozenset(filter(_is_installed, MODULES)),
        gpu=in_wsl or any((devices / name).exists() for name in GPU_FILES),
        x86=platform.machine().lower() in {"x86_64", "amd64"},
    )


def runtime_choices(here: Here) -> tuple[RuntimeChoice, ...]:
    """All runtimes in order of preference, including those that cannot run here.

    A GPU before the processor; TensorRT before TensorRT-RTX, which compiles its kernels when
    the engine is first run. On x86-64 OpenVINO was as fast as ONNX Runtime in FP32, a little
    faster in INT8 with AVX2 and much faster with VNNI; elsewhere it was not measured.
    """
    found = [
        _on_gpu("tensorrt", "tensorrt", here, "runs on the GPU"),
        _on_gpu("tensorrt-rtx", "tensorrt_rtx", here, "runs on the GPU, compiling at first run"),
    ]
    openvino = _on_cpu("openvino", here, "the fastest on x86-64 processors")
    onnxruntime = _on_cpu("onnxruntime", here, "runs on every processor")
    return (*found, *((openvino, onnxruntime) if here.x86 else (onnxruntime, openvino)))


def runtimes_here(here: Here | None = None) -> tuple[BuildRuntime, ...]:
    """The runtimes that can run a network on this machine, in order of preference."""
    return tuple(c.runtime for c in runtime_choices(here or probe_machine()) if c.runs)


def best_here(here: Here | None = None) -> BuildRuntime:
    """Return the preferred runtime of this machine, and log the choice with its reasons.

    Raises:
        RuntimeMissing: No runtime can run on this machine.
    """
    found = runtime_choices(here or probe_machine())
    chosen = next((place for place, c in enumerate(found) if c.runs), None)
    if chosen is None:
        raise RuntimeMissing(
            "no runtime can run a network here: "
            + "; ".join(f"{c.runtime}: {c.reason}" for c in found),
            hint="pip install 'edgeseg[cpu]'",
        )
    best, better = found[chosen], found[:chosen]
    why_not = "".join(f"; not {c.runtime}: {c.reason}" for c in better)
    logger.info("runtime %s: %s%s", best.runtime, best.reason, why_not)
    return best.runtime


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # The package that it would be in.
        return False


def _on_gpu(runtime: BuildRuntime, module: str, here: Here, advantage: str) -> RuntimeChoice:
    if not here.gpu:
        return RuntimeChoice(runtime, runs=False, reason="no NVIDIA GPU with a driver")
    if module not in here.modules:
        return RuntimeChoice(runtime, runs=False, reason="not installed")
    if not here.modules.intersection(CUDA_MODULES):
        return RuntimeChoice(runtime, runs=False, reason="neither cuda-python nor pycuda installed")
    return RuntimeChoice(runtime, runs=True, reason=advantage)


def _on_cpu(runtime: BuildRuntime, here: Here, advantage: str) -> RuntimeChoice:
    installed = runtime in here.modules
    return RuntimeChoice(runtime, installed, advantage if installed else "not installed")
