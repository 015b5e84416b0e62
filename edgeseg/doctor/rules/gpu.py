"""Rules for engines on NVIDIA GPUs: driver, CUDA bindings, TensorRT, kernels.

Error numbers are those of ``CUresult`` in cuda.h. Which driver a binding needs: "Installation",
https://nvidia.github.io/cuda-python/cuda-bindings/latest/install.html.
"""

from __future__ import annotations

from typing import Literal

from edgeseg.doctor.check import Trouble
from edgeseg.doctor.facts import SystemFacts, numbers

Cause = Literal["mismatch", "container", "wsl", "group", "driver", "other", "none"]

_MISMATCH = 803  # CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""GPUs that TensorRT-RTX 1.7 compiles for."""


def cuda_binding(facts: SystemFacts) -> str:
    """Return the command that installs a CUDA binding for the CUDA version of the driver."""
    spoken = facts.cuda_version
    if spoken and spoken[0] == 12:
        return "pip install 'cuda-python>=12.6.1,<13'"
    return "pip install 'edgeseg[cuda]'"


def cause(facts: SystemFacts) -> Cause | None:
    """Return why CUDA lists no GPU; None if it lists one."""
    if facts.gpus:
        return None
    cuda, jetson = facts.library("cuda"), facts.jetson is not None
    mismatch = "mismatch" in facts.nvidia_smi.lower() or cuda.told.get("status") == _MISMATCH
    in_sight = jetson or facts.nvidia_pci or facts.listed_gpus or facts.nvidia_module
    causes: tuple[tuple[Cause, object], ...] = (
        ("mismatch", mismatch),
        ("wsl", facts.wsl),
        ("none", not in_sight),
        ("group", jetson and not facts.video_group),
        ("container", facts.container and "libcuda.so.1" in cuda.error),
        ("driver", not jetson and not facts.nvidia_module),
    )
    return next((name for name, holds in causes if holds), "other")


def driver_mismatch(facts: SystemFacts) -> Trouble | None:
    """The driver was updated, but the old kernel module is loaded until a restart."""
    if cause(facts) != "mismatch":
        return None
    module = f" {facts.nvidia_module}" if facts.nvidia_module else ""
    return Trouble(
        f"the loaded kernel module{module} is of another driver version than the libraries "
        "(an update since the last start)",
        "sudo reboot",
        blocks=True,
    )


def gpu_not_given_to_container(facts: SystemFacts) -> Trouble | None:
    """The container sees the kernel module of the host, but not the driver libraries."""
    if cause(facts) != "container":
        return None
    return Trouble(
        "the host has an NVIDIA GPU and this container was started without it",
        "docker run --gpus all IMAGE   # with nvidia-container-toolkit on the host; Jetson: "
        "--runtime nvidia",
        blocks=True,
    )


def wsl_without_driver(facts: SystemFacts) -> Trouble | None:
    """WSL uses the driver of Windows: "CUDA on WSL User Guide", which warns of one inside WSL."""
    if cause(facts) != "wsl":
        return None
    return Trouble(
        "WSL shows no NVIDIA GPU: its driver is that of Windows, none belongs inside WSL",
        "# on Windows: install the NVIDIA driver, then in PowerShell: wsl --update; wsl --shutdown",
        blocks=True,
    )


def driver_absent(facts: SystemFacts) -> Trouble | None:
    """There is a GPU but no kernel module: wiki.debian.org/NvidiaGraphicsDrivers; in non-free."""
    if cause(facts) != "driver":
        return None
    ubuntu = "ubuntu" in facts.os.lower()
    install = "sudo ubuntu-drivers install" if ubuntu else "sudo apt-get install nvidia-driver"
    return Trouble(
        "an NVIDIA GPU is there and its driver is not loaded",
        f"{install}\nsudo reboot",
        blocks=True,
    )


def cuda_does_not_start(facts: SystemFacts) -> Trouble | None:
    """CUDA does not start for a reason that no other rule explains."""
    if cause(facts) != "other":
        return None
    cuda = facts.library("cuda")
    why = cuda.error or f"cuInit gave {cuda.told.get('status')}"
    listed = ", ".join(facts.listed_gpus) or (facts.jetson.board if facts.jetson else "a GPU")
    return Trouble(
        f"{listed} is there but CUDA does not start: {why}",
        "sudo dmesg | grep -iE 'nvrm|nvidia|nvgpu'   # the driver's own messages\nsudo reboot",
        blocks=True,
    )


def driver_too_old(facts: SystemFacts) -> Trouble | None:
    """The driver is too old: no CUDA 11 binding supports Python 3.10 and the calls of edgeseg."""
    spoken = facts.cuda_version
    if facts.jetson or not facts.gpus or spoken is None or spoken >= (12, 0):
        return None
    return Trouble(
        f"the driver {facts.driver} supports CUDA {spoken[0]}.{spoken[1]}, and 12.0 is needed "
        "(525.60.13 or newer)",
        _install_driver(facts),
        blocks=True,
    )


def _install_driver(facts: SystemFacts) -> str:
    if facts.wsl:
        return "# on Windows: update the NVIDIA driver"
    ubuntu = "ubuntu" in facts.os.lower()
    install = "sudo ubuntu-drivers install" if ubuntu else "sudo apt-get install nvidia-driver"
    return f"{install}\nsudo reboot"


def no_gpu(facts: SystemFacts) -> Trouble | None:
    """There is no NVIDIA GPU."""
    if cause(facts) != "none":
        return None
    return Trouble("there is no NVIDIA GPU", blocks=True)


def tensorrt_absent(facts: SystemFacts) -> Trouble | None:
    """TensorRT is missing on a desktop; Jetsons get it from JetPack."""
    if facts.jetson or not facts.gpus or facts.tensorrt or facts.has("tensorrt-rtx"):
        return None
    if facts.gpus[0].capability in RTX_CAPABILITIES:
        hint = f"pip install 'edgeseg[tensorrt-rtx]'\n{cuda_binding(facts)}"
    else:
        hint = f"{_install_tensorrt(facts)}\n{cuda_binding(facts)}"
    return Trouble(
        f"neither TensorRT nor TensorRT-RTX is installed for {facts.gpus[0].name}",
        hint,
        blocks=True,
    )


def _install_tensorrt(facts: SystemFacts) -> str:
    """``tensorrt`` is the package for CUDA 13: "Python Package Index Installation"."""
    twelve = (facts.cuda_version or (13, 0))[0] == 12
    return f"pip install tensorrt{'-cu12' if twelve else ''}"


def rtx_does_not_know_gpu(facts: SystemFacts) -> Trouble | None:
    """TensorRT-RTX does not support this GPU, e.g. Hopper, Orin and Thor."""
    if not facts.gpus or not facts.has("tensorrt-rtx") or facts.tensorrt:
        return None
    gpu = facts.gpus[0]
    if gpu.capability in RTX_CAPABILITIES or not gpu.capability:
        return None
    return Trouble(
        f"TensorRT-RTX compiles for RTX GPUs ({', '.join(RTX_CAPABILITIES)}), and {gpu.name} has "
        f"compute capability {gpu.capability}",
        "sudo apt-get install nvidia-jetpack" if facts.jetson else _install_tensorrt(facts),
        blocks=True,
    )


def cuda_binding_absent(facts: SystemFacts) -> Trouble | None:
    """The CUDA binding, which copies frames to the GPU, is missing."""
    tensorrt = facts.tensorrt or facts.has("tensorrt-rtx")
    if not facts.gpus or not tensorrt or _binding(facts) or facts.has("pycuda"):
        return None
    if (facts.cuda_version or (12, 0)) < (12, 0):
        return None
    return Trouble(
        "neither cuda-python nor pycuda is installed: engines are built but do not run",
        cuda_binding(facts),
        blocks=True,
    )


def cuda_binding_too_new(facts: SystemFacts) -> Trouble | None:
    """cuda-python 13 needs a driver of CUDA 13 (580.65.06 or newer); JetPack 6 has 12.6."""
    spoken, binding = facts.cuda_version, _binding(facts)
    if not (facts.gpus and spoken and binding) or numbers(binding)[0] <= spoken[0]:
        return None
    return Trouble(
        f"cuda-python {binding} needs a driver of CUDA {numbers(binding)[0]}, and this one speaks "
        f"CUDA {spoken[0]}.{spoken[1]}",
        cuda_binding(facts),
        blocks=True,
    )


def _binding(facts: SystemFacts) -> str:
    found = facts.distributions
    return found.get("cuda-bindings") or found.get("cuda-python") or ""


def kernels_absent(facts: SystemFacts) -> Trouble | None:
    """The GPU kernels for preprocessing and drawing are missing, and NVRTC cannot compile them."""
    told = facts.library("kernels").told
    if not facts.gpus or not _binding(facts) or told.get("fatbin") or told.get("nvrtc"):
        return None
    twelve = (facts.cuda_version or (13, 0))[0] == 12
    return Trouble(
        "this installation brought no frame kernels and NVRTC is not available to compile "
        "them: frames "
        "are prepared on the processor",
        f"pip install nvidia-cuda-nvrtc{'-cu12' if twelve else ''}",
    )


def cpu_onnxruntime_hides_gpus(facts: SystemFacts) -> Trouble | None:
    """Both ONNX Runtime packages write the folder ``onnxruntime``: microsoft/onnxruntime#26996."""
    providers = facts.library("onnxruntime").told.get("providers")
    both = facts.has("onnxruntime", "onnxruntime-gpu")
    if not facts.gpus or not both or not isinstance(providers, list):
        return None
    if "CUDAExecutionProvider" in providers:
        return None
    version = facts.distributions["onnxruntime-gpu"]
    # The package index has none for aarch64.
    origin = "   # add the --index-url that it came from" if facts.jetson else ""
    return Trouble(
        "onnxruntime was installed over onnxruntime-gpu: ONNX Runtime has no CUDA here",
        f"pip install --force-reinstall --no-deps onnxruntime-gpu=={version}{origin}",
    )
