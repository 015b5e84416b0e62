"""Whether an artefact can run on this machine, asked of metadata alone: nothing is imported."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

from edgeseg.inspection.document import RunsHere
from edgeseg.machine import gpus, versions
from edgeseg.sidecar import SideCar


def checkpoint_here() -> RunsHere:
    """Checkpoints run in PyTorch."""
    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    return _with_modules("torch", missing, "pip install 'edgeseg[train]'")


def network_here(sidecar: SideCar | None) -> RunsHere:
    """ONNX networks run in ONNX Runtime, on any processor, or in OpenVINO if built for that."""
    if sidecar is not None and sidecar.runtime == "openvino":
        missing = [name for name in ("openvino", "cv2") if find_spec(name) is None]
        return _with_modules("openvino", missing, "pip install 'edgeseg[openvino]'")
    missing = [name for name in ("onnxruntime", "cv2") if find_spec(name) is None]
    return _with_modules("onnxruntime", missing, "pip install 'edgeseg[cpu]'")


def engine_here(path: Path, sidecar: SideCar) -> RunsHere:
    """Engines run in the very version that built them, on a GPU they were built for."""
    reason, mend = _obstacle(path, sidecar)
    return RunsHere(runs=reason is None, runtime=sidecar.runtime, reason=reason, mend=mend)


def rebuild_command(path: Path, sidecar: SideCar) -> str:
    """The command that makes this engine again from the network beside it."""
    stem = path.name.split(".")[0]
    words = ["edgeseg", "build", str(path.with_name(f"{stem}.onnx")), f"--{sidecar.card.precision}"]
    words += ["--runtime", sidecar.runtime]
    for target in sidecar.targets:
        words += ["--target", target]
    return shlex.join(words)


def _with_modules(runtime: str, missing: list[str], mend: str) -> RunsHere:
    if not missing:
        return RunsHere(runs=True, runtime=runtime)
    reason = f"{' and '.join(missing)} not installed"
    return RunsHere(runs=False, runtime=runtime, reason=reason, mend=mend)


def _obstacle(path: Path, sidecar: SideCar) -> tuple[str | None, str | None]:
    found = versions((sidecar.runtime,)).get(sidecar.runtime)
    devices = gpus()
    if not devices:
        return (
            "there is no NVIDIA GPU that `nvidia-smi` lists",
            "run the ONNX network on this machine; `edgeseg doctor` says what there is",
        )
    if found is None:
        mend = (
            "pip install 'edgeseg[tensorrt-rtx]'"
            if sidecar.runtime == "tensorrt-rtx"
            else "edgeseg doctor"
        )
        return f"{sidecar.runtime} is not installed", mend
    if not _same_version(found, sidecar.runtime_version):
        return (
            f"it needs {sidecar.runtime} {sidecar.runtime_version}, installed is {found}",
            rebuild_command(path, sidecar),
        )
    here = {f"sm_{gpu.compute_capability.replace('.', '')}": gpu.name for gpu in devices}
    if sidecar.targets and not here.keys() & set(sidecar.targets):
        return (
            f"it is compiled for {', '.join(sidecar.targets)}, here is "
            + ", ".join(f"{name} ({target})" for target, name in here.items()),
            rebuild_command(path, sidecar),
        )
    return None, None


def _same_version(one: str, other: str) -> bool:
    """``1.7.1`` and ``1.7.1.116`` are one version; a part that both state decides."""
    return all(a == b for a, b in zip(one.split("."), other.split("."), strict=False))
