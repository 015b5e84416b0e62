"""CUDA through cuda-python (``cuda.bindings.runtime``) of CUDA 12 and 13."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from typing import Any

from edgeseg.engines.cuda.device import DeviceFacts, Dim3, dotted
from edgeseg.errors import DeviceError, RuntimeMissing

_DEVICE = 0

INSTALL = "pip install 'edgeseg[cuda]'"


class CudaPython:
    """The first GPU through NVIDIA's own bindings of the runtime API.

    That API keeps to the device's primary context, as TensorRT does. The names are those which
    12.6 and 13 have in common: ``cudaGraphInstantiate`` alone changed its arguments with 12, and
    ``cudaGraphInstantiateWithFlags`` did not.

    Args:
        runtime: The module; ``cuda.bindings.runtime`` by default.
        driver: The module; ``cuda.bindings.driver`` by default.

    Raises:
        RuntimeMissing: cuda-python, the driver or a GPU is missing.
    """

    adapter = "cuda-python"

    def __init__(self, runtime: Any = None, driver: Any = None) -> None:
        self._cuda: Any = runtime or _bindings("runtime")
        self._driver: Any = driver or _bindings("driver")
        self._require_device()
        self.facts = self._read_facts()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device the thread's own; the runtime API restores nothing and needs nothing."""
        self._call("cudaSetDevice", _DEVICE)
        yield

    def _call(self, name: str, *arguments: Any) -> Any:
        """The one value that the function gives, None where it gives nothing."""
        status, *values = getattr(self._cuda, name)(*arguments)
        if int(status) != 0:
            raise DeviceError(f"{name}: {self._reason(status)}")
        return values[0] if values else None

    def _drive(self, name: str, *arguments: Any) -> Any:
        """:meth:`_call` of the driver API, which alone has modules, in the runtime's context."""
        with self.current():
            try:
                status, *values = getattr(self._driver, name)(*arguments)
            except RuntimeError as error:  # DynamicLibNotFoundError is one: libcuda.
                raise RuntimeMissing(
                    f"the CUDA driver does not load: {' '.join(str(error).split())[:200]}",
                    hint="install the NVIDIA driver, then run `edgeseg doctor`",
                ) from error
        if int(status) != 0:
            _, word = self._driver.cuGetErrorName(status)
            _, text = self._driver.cuGetErrorString(status)
            raise DeviceError(f"{name}: {_text(word)} ({_text(text)})")
        return values[0] if values else None

    destroy_stream = partialmethod(_call, "cudaStreamDestroy")
    synchronize = partialmethod(_call, "cudaStreamSynchronize")
    free = partialmethod(_call, "cudaFree")
    free_host = partialmethod(_call, "cudaFreeHost")
    unload_module = partialmethod(_drive, "cuModuleUnload")
    destroy_event = partialmethod(_call, "cudaEventDestroy")
    record = partialmethod(_call, "cudaEventRecord")
    wait = partialmethod(_call, "cudaEventSynchronize")
    launch = partialmethod(_call, "cudaGraphLaunch")
    destroy_graph = partialmethod(_call, "cudaGraphExecDestroy")

    def create_stream(self) -> int:
        return int(self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def allocate(self, nbytes: int) -> int:
        return int(self._call("cudaMalloc", nbytes))

    def allocate_host(self, nbytes: int, *, mapped: bool) -> int:
        kind = self._cuda.cudaHostAllocMapped if mapped else self._cuda.cudaHostAllocDefault
        return int(self._call("cudaHostAlloc", nbytes, kind))

    def device_address(self, host: int) -> int:
        return int(self._call("cudaHostGetDevicePointer", host, 0))

    def copy_in(self, device: int, host: int, nbytes: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", device, host, nbytes, kind, stream)

    def copy_out(self, host: int, device: int, nbytes: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host, device, nbytes, kind, stream)

    def copy_within(self, target: int, source: int, nbytes: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, nbytes, kind, stream)

    def load_module(self, image: bytes) -> int:
        return int(self._drive("cuModuleLoadData", image))

    def kernel(self, module: int, name: str) -> int:
        return int(self._drive("cuModuleGetFunction", module, name.encode()))

    def launch_kernel(self, kernel: int, grid: Dim3, block: Dim3, argument: bytes, to: int) -> None:
        value = ctypes.create_string_buffer(argument, len(argument))
        places = (ctypes.c_void_p * 1)(ctypes.addressof(value))
        self._drive("cuLaunchKernel", kernel, *grid, *block, 0, to, ctypes.addressof(places), 0)

    def create_event(self) -> int:
        return int(self._call("cudaEventCreateWithFlags", self._cuda.cudaEventDefault))

    def elapsed_ms(self, start: int, end: int) -> float:
        self._call("cudaEventSynchronize", end)
        return float(self._call("cudaEventElapsedTime", start, end))

    def begin_capture(self, stream: int) -> None:
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiateWithFlags", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def _reason(self, status: Any) -> str:
        """``cudaErrorMemoryAllocation (out of memory)``."""
        _, name = self._cuda.cudaGetErrorName(status)
        _, text = self._cuda.cudaGetErrorString(status)
        return f"{_text(name)} ({_text(text)})"

    def _require_device(self) -> None:
        try:
            status, count = self._cuda.cudaGetDeviceCount()
            _, driver = self._cuda.cudaDriverGetVersion()
        except RuntimeError as error:  # DynamicLibNotFoundError is one: libcuda or libcudart.
            raise RuntimeMissing(
                f"CUDA does not start: {' '.join(str(error).split())[:200]}",
                hint="install the NVIDIA driver, then run `edgeseg doctor`",
            ) from error
        if int(status) == 0 and count:
            return
        if not driver:
            raise RuntimeMissing(
                "there is no NVIDIA driver on this machine",
                hint="install the driver where there is an NVIDIA GPU, then run `edgeseg doctor`",
            )
        _, runtime = self._cuda.cudaRuntimeGetVersion()
        if driver < runtime // 1000 * 1000:
            raise RuntimeMissing(
                f"the NVIDIA driver serves CUDA {dotted(driver)}, this cuda-python is for "
                f"{dotted(runtime)}",
                hint=f"pip install 'cuda-python<{runtime // 1000}', or a newer driver",
            )
        reason = self._reason(status) if int(status) else "none is visible"
        raise RuntimeMissing(
            f"CUDA finds no GPU: {reason}",
            hint="look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES, then run `edgeseg doctor`",
        )

    def _read_facts(self) -> DeviceFacts:
        properties = self._call("cudaGetDeviceProperties", _DEVICE)
        return DeviceFacts(
            name=_text(properties.name).strip("\0 "),
            compute_capability=(int(properties.major), int(properties.minor)),
            integrated=bool(properties.integrated),
            memory_mib=int(properties.totalGlobalMem) >> 20,
            driver_version=dotted(self._call("cudaDriverGetVersion")),
            runtime_version=dotted(self._call("cudaRuntimeGetVersion")),
        )


def _bindings(part: str) -> Any:
    try:
        return importlib.import_module(f"cuda.bindings.{part}")
    except (ImportError, OSError) as error:
        raise RuntimeMissing(
            "running an engine needs cuda-python, which is not installed "
            f"({' '.join(str(error).split())[:150]})",
            hint=f"{INSTALL} (with CUDA 12, as in JetPack 6: pip install 'cuda-python<13'), "
            "or set EDGESEG_CUDA=pycuda",
        ) from error


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
