"""Compile the kernels for the local GPU if the wheel has none, and cache the result.

With cuda-python by NVRTC, which needs no compiler on the machine; with pycuda by the nvcc that it
needs anyway. One source serves both and the build of a wheel.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
from pathlib import Path
from typing import Any, Protocol

from edgeseg.engines import kept
from edgeseg.engines.cuda.device import Cuda
from edgeseg.errors import RuntimeMissing

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).parents[2] / "native" / "cuda" / "frame.cu"


class Compiler(Protocol):
    """A compiler from CUDA C++ to code that a driver can load."""

    version: str
    """Version of the compiler, including its name."""

    def compile(self, source: bytes, target: str) -> bytes:
        """A cubin for ``target`` (``sm_89``), or PTX if the compiler is older than that GPU.

        Raises:
            RuntimeMissing: It does not compile, with the compiler's reason.
        """


class Nvrtc:
    """NVIDIA's run-time compiler through ``cuda.bindings.nvrtc``.

    Raises:
        RuntimeMissing: cuda-python or libnvrtc is not here.
    """

    def __init__(self, nvrtc: Any = None) -> None:
        try:
            self._nvrtc: Any = nvrtc or importlib.import_module("cuda.bindings.nvrtc")
            major, minor = self._call("nvrtcVersion")
        except (ImportError, OSError, RuntimeError) as error:  # DynamicLibNotFoundError is one.
            raise RuntimeMissing(
                f"NVRTC is not available ({' '.join(str(error).split())[:150]})",
                hint="pip install nvidia-cuda-nvrtc (CUDA 12: nvidia-cuda-nvrtc-cu12)",
            ) from error
        self.version = f"nvrtc-{major}.{minor}"

    def compile(self, source: bytes, target: str) -> bytes:
        """A cubin; PTX of the newest architecture that NVRTC knows for a newer GPU."""
        number, (known,) = int(target[3:]), self._call("nvrtcGetSupportedArchs")
        usable = [arch for arch in known if arch <= number]
        if not usable:
            raise RuntimeMissing(f"{self.version} has no code for {target}")
        cubin = number in usable
        arch = f"sm_{number}" if cubin else f"compute_{max(usable)}"
        (program,) = self._call("nvrtcCreateProgram", source, SOURCE.name.encode(), 0, [], [])
        try:
            options = [b"--std=c++17", f"--gpu-architecture={arch}".encode()]
            if int(self._nvrtc.nvrtcCompileProgram(program, len(options), options)[0]):
                log = self._bytes(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
                raise RuntimeMissing(f"{self.version} does not compile {SOURCE}: {log[:500]}")
            return self._bytes(program, "CUBIN" if cubin else "PTX")
        finally:
            self._nvrtc.nvrtcDestroyProgram(program)

    def _bytes(self, program: Any, what: str) -> bytes:
        (size,) = self._call(f"nvrtcGet{what}Size", program)
        data = bytes(size)
        self._call(f"nvrtcGet{what}", program, data)  # Which writes into it, as NVIDIA's own do.
        return data

    def _call(self, name: str, *arguments: Any) -> list[Any]:
        status, *values = getattr(self._nvrtc, name)(*arguments)
        if int(status):
            raise RuntimeMissing(f"{name}: {self._nvrtc.nvrtcGetErrorString(status)[1]!r}")
        return list(values)


class PycudaNvcc:
    """The machine's nvcc through ``pycuda.compiler``.

    Raises:
        RuntimeMissing: There is no nvcc.
    """

    def __init__(self) -> None:
        try:
            self._compiler: Any = importlib.import_module("pycuda.compiler")
            output = str(self._compiler.get_nvcc_version("nvcc"))
        except (ImportError, OSError) as error:
            raise RuntimeMissing(f"pycuda finds no nvcc ({error})") from error
        self.version = f"nvcc-{hashlib.sha256(output.encode()).hexdigest()[:8]}"

    def compile(self, source: bytes, target: str) -> bytes:
        """A cubin."""
        try:
            cubin: bytes = self._compiler.compile(
                source.decode(),
                options=["-std=c++17"],
                no_extern_c=True,
                arch=target,
                cache_dir=False,
            )
        except Exception as error:  # pycuda.driver.CompileError, which is not imported here.
            reason = " ".join(str(error).split())[:500]
            raise RuntimeMissing(f"nvcc does not compile {SOURCE}: {reason}") from error
        return cubin


def compiled(cuda: Cuda, compiler: Compiler | None = None) -> bytes:
    """Load the kernels for ``cuda`` from the user's cache folder, or compile and cache them.

    Raises:
        RuntimeMissing: There is no compiler, or it does not take the source or the GPU.
    """
    compiler = compiler or (Nvrtc() if cuda.adapter == "cuda-python" else PycudaNvcc())
    source, target = SOURCE.read_bytes(), cuda.facts.target
    name = f"{hashlib.sha256(source).hexdigest()[:16]}-{target}-{compiler.version}.cubin"
    path = kept.folder() / "kernels" / name
    try:
        image, problem = kept.read(path)
        if not problem:
            return image
        logger.warning("%s is ignored (%s): compiling again", path, problem)
    except FileNotFoundError:
        logger.info("compiling the kernels for %s once", cuda.facts.name)
    image = compiler.compile(source, target)
    kept.write(path, image)
    return image
