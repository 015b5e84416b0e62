"""Tell from metadata whether an artefact can run on this machine; no runtime is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from edgeseg.artifacts.files import open_file
from edgeseg.artifacts.sidecar import SideCar
from edgeseg.inspection.document import RunsHere
from edgeseg.machine import gpus, versions


def checkpoint_here() -> RunsHere:
    """Checkpoints run in PyTorch."""
    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    return _with_modules("torch", missing, "pip install 'edgeseg[train]'")


def network_here(sidecar: SideCar | None) -> RunsHere:
    """ONNX networks run in ONNX Runtime, on any processor, or in OpenVINO if built for that."""
    openvino = sidecar is not None and sidecar.runtime == "openvino"
    runtime, extra = ("openvino", "openvino") if openvino else ("onnxruntime", "cpu")
    missing = [name for name in (runtime, "cv2") if find_spec(name) is None]
    return _with_modules(runtime, missing, f"pip install 'edgeseg[{extra}]'")


def engine_here(path: Path, sidecar: SideCar) -> RunsHere:
    """Engines run in the very version that built them, on a GPU they were built for."""
    reason, hint = _obstacle(path, sidecar)
    return RunsHere(runs=reason is None, runtime=sidecar.runtime, reason=reason, hint=hint)


def _with_modules(runtime: str, missing: list[str], hint: str) -> RunsHere:
    if not missing:
        return RunsHere(runs=True, runtime=runtime)
    reason = f"{' and '.join(missing)} not installed"
    return RunsHere(runs=False, runtime=runtime, reason=reason, hint=hint)


def _obstacle(path: Path, sidecar: SideCar) -> tuple[str | None, str | None]:
    """Why not, and what to do: by the rules of the preflight, on the GPUs that NVML lists."""
    devices = gpus()
    if not devices:
        return (
            "there is no NVIDIA GPU that `nvidia-smi` lists",
            "run the ONNX network on this machine; `edgeseg doctor` says what there is",
        )
    found = versions((sidecar.runtime,)).get(sidecar.runtime)
    if found is None:
        rtx = sidecar.runtime == "tensorrt-rtx"
        hint = "pip install 'edgeseg[tensorrt-rtx]'" if rtx else "edgeseg doctor"
        return f"{sidecar.runtime} is not installed", hint
    try:
        from edgeseg.engines.cuda import DeviceFacts
        from edgeseg.engines.tensorrt.preflight import (
            RTX_HEADER_BYTES,
            Host,
            mismatch,
            rebuild_command,
        )
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed", "pip install 'edgeseg[cpu]'"
    with open_file(path) as stream:
        header = stream.read(RTX_HEADER_BYTES)
    # CUDA's first device runs an engine; NVML lists the same one first on most machines.
    gpu = devices[0]
    device = DeviceFacts(
        name=gpu.name,
        compute_capability=_capability(gpu.compute_capability),
        integrated=False,
        memory_mib=gpu.memory_mib or 0,
        driver_version=gpu.driver,
        runtime_version="",
    )
    host = Host(found, device)
    wrong = mismatch(sidecar, header, host)
    if wrong is None:
        return None, None
    reason = f"it was built for {wrong.made_for}, and this is {wrong.found}"
    return reason, rebuild_command(path, sidecar, wrong.targets)


def _capability(text: str) -> tuple[int, int]:
    """Parse ``8.6`` to (8, 6); (0, 0) if the driver does not report it."""
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
