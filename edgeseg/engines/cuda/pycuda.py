"""CUDA through pycuda, on the device's primary context, which TensorRT uses too."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgeseg.engines.cuda.device import DeviceFacts, Dim3, dotted
from edgeseg.errors import DeviceError, RuntimeMissing

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING; pycuda has no name for it.

INSTALL = "pip install 'edgeseg[pycuda]' (it needs nvcc and the driver's libcuda)"


class PyCuda:
    """The first GPU through pycuda.

    The primary context is pushed for each call and popped after it, never by
    ``pycuda.autoinit``: what the program does with CUDA besides stays as it was. pycuda frees
    memory, streams and events when Python drops them, so they are kept here by their handle. It
    has no graphs; those are the driver's, through ctypes, by their names since CUDA 11.4
    (https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html).

    Args:
        driver: The module; ``pycuda.driver`` by default.
        libcuda: The driver library, which has the graphs; ``libcuda.so.1`` by default.

    Raises:
        RuntimeMissing: pycuda, the driver or a GPU is missing.
        DeviceError: No context can be created on the GPU.
    """

    adapter = "pycuda"

    def __init__(self, driver: Any = None, libcuda: Any = None) -> None:
        self._driver: Any = driver or _pycuda()
        self._owned: dict[int, Any] = {}
        self._kernels: dict[int, list[int]] = {}
        device = _first_device(self._driver)
        with self._device_errors():
            self._context: Any = device.retain_primary_context()
            self.facts = self._read_facts(device)
        try:
            self._libcuda: Any = libcuda or ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise RuntimeMissing(
                f"there is no NVIDIA driver on this machine ({error})",
                hint="install the driver, then run `edgeseg doctor`",
            ) from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push the primary context on this thread, and pop it."""
        with self._device_errors():
            self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def create_stream(self) -> int:
        with self._calling():
            stream = self._driver.Stream(_NON_BLOCKING)
        return self._keep(int(stream.handle), stream)

    def destroy_stream(self, stream: int) -> None:
        with self._calling():
            del self._owned[stream]

    def synchronize(self, stream: int) -> None:
        with self._calling():
            self._owned[stream].synchronize()

    def allocate(self, nbytes: int) -> int:
        with self._calling():
            memory = self._driver.mem_alloc(nbytes)
        return self._keep(int(memory), memory)

    def free(self, address: int) -> None:
        with self._calling():
            self._owned.pop(address).free()

    def allocate_host(self, nbytes: int, *, mapped: bool) -> int:
        flags = self._driver.host_alloc_flags.DEVICEMAP if mapped else 0
        with self._calling():
            array = self._driver.pagelocked_empty(nbytes, "uint8", mem_flags=flags)
        # The array's base is the allocation, which frees itself with it or on request.
        return self._keep(int(array.ctypes.data), array.base)

    def free_host(self, address: int) -> None:
        with self._calling():
            self._owned.pop(address).free()

    def device_address(self, host: int) -> int:
        with self._calling():
            return int(self._owned[host].get_device_pointer())

    def copy_in(self, device: int, host: int, nbytes: int, stream: int) -> None:
        with self._calling():
            self._driver.memcpy_htod_async(device, _bytes_at(host, nbytes), self._owned[stream])

    def copy_out(self, host: int, device: int, nbytes: int, stream: int) -> None:
        with self._calling():
            self._driver.memcpy_dtoh_async(_bytes_at(host, nbytes), device, self._owned[stream])

    def copy_within(self, target: int, source: int, nbytes: int, stream: int) -> None:
        with self._calling():
            self._driver.memcpy_dtod_async(target, source, nbytes, self._owned[stream])

    def load_module(self, image: bytes) -> int:
        with self._calling():
            module = self._driver.module_from_buffer(image)
        return self._keep(id(module), module)  # pycuda hides the handles of modules and kernels.

    def unload_module(self, module: int) -> None:
        with self._calling():
            for kernel in self._kernels.pop(module, []):
                del self._owned[kernel]
            del self._owned[module]

    def kernel(self, module: int, name: str) -> int:
        with self._calling():
            kernel = self._owned[module].get_function(name)
        self._kernels.setdefault(module, []).append(id(kernel))
        return self._keep(id(kernel), kernel)

    def launch_kernel(self, kernel: int, grid: Dim3, block: Dim3, argument: bytes, to: int) -> None:
        value = np.frombuffer(argument, np.uint8)
        with self._calling():
            self._owned[kernel](value, grid=grid, block=block, stream=self._owned[to])

    def create_event(self) -> int:
        with self._calling():
            event = self._driver.Event()
        return self._keep(id(event), event)  # pycuda hides the handle of an event.

    def destroy_event(self, event: int) -> None:
        with self._calling():
            del self._owned[event]

    def record(self, event: int, stream: int) -> None:
        with self._calling():
            self._owned[event].record(self._owned[stream])

    def wait(self, event: int) -> None:
        with self._calling():
            self._owned[event].synchronize()

    def elapsed_ms(self, start: int, end: int) -> float:
        with self._calling():
            self._owned[end].synchronize()
            return float(self._owned[start].time_till(self._owned[end]))

    def begin_capture(self, stream: int) -> None:
        mode = ctypes.c_int(_THREAD_LOCAL)
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), mode)

    def end_capture(self, stream: int) -> int:
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            flags = ctypes.c_ulonglong(0)
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, flags)
        finally:
            self._call("cuGraphDestroy", graph)
        return int(ready.value or 0)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver, which alone has graphs."""
        with self.current():
            status = int(getattr(self._libcuda, name)(*arguments))
        if status:
            word, text = (self._text(ask, status) for ask in ("cuGetErrorName", "cuGetErrorString"))
            raise DeviceError(f"{name}: {word} ({text})")

    def _text(self, ask: str, status: int) -> str:
        text = ctypes.c_char_p()
        getattr(self._libcuda, ask)(ctypes.c_int(status), ctypes.byref(text))
        return (text.value or b"unknown").decode(errors="replace")

    def _keep(self, handle: int, owner: Any) -> int:
        self._owned[handle] = owner
        return handle

    @contextmanager
    def _calling(self) -> Iterator[None]:
        with self.current(), self._device_errors():
            yield

    @contextmanager
    def _device_errors(self) -> Iterator[None]:
        """Convert pycuda's errors to DeviceError: ``cuMemAlloc failed: out of memory``."""
        try:
            yield
        except self._driver.Error as error:
            raise DeviceError(f"pycuda: {' '.join(str(error).split())[:300]}") from error

    def _read_facts(self, device: Any) -> DeviceFacts:
        driver = self._driver
        major, minor = device.compute_capability()
        return DeviceFacts(
            name=str(device.name()),
            compute_capability=(int(major), int(minor)),
            integrated=bool(device.get_attribute(driver.device_attribute.INTEGRATED)),
            memory_mib=int(device.total_memory()) >> 20,
            driver_version=dotted(driver.get_driver_version()),
            runtime_version="{}.{}".format(*driver.get_version()[:2]),
        )


def _pycuda() -> Any:
    try:
        return importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:  # Also where libcuda.so.1 is missing.
        raise RuntimeMissing(
            f"EDGESEG_CUDA=pycuda, and pycuda cannot be imported "
            f"({' '.join(str(error).split())[:150]})",
            hint=f"{INSTALL}, or leave EDGESEG_CUDA unset to use cuda-python",
        ) from error


def _first_device(driver: Any) -> Any:
    try:
        driver.init()
        if driver.Device.count():
            return driver.Device(0)
        reason = "none is visible"
    except driver.Error as error:
        reason = " ".join(str(error).split())[:200]
    raise RuntimeMissing(
        f"CUDA finds no GPU: {reason}",
        hint="look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES, then run `edgeseg doctor`",
    )


def _bytes_at(address: int, nbytes: int) -> Any:
    """Host memory as the buffer that pycuda's copies take."""
    return (ctypes.c_ubyte * nbytes).from_address(address)
