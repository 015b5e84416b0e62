"""The three faces of a stand-in GPU: ``cuda.bindings.runtime``, ``pycuda.driver``, libcuda."""

# ruff: noqa: N802, N815 - the names are CUDA's

from __future__ import annotations

import ctypes
import functools
import inspect
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from standin import kernels
from standin.device import Device, Fault, Status


def _answering(method: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """Answer as cuda-python does: the status, and what there is besides."""
    gives = inspect.signature(method).return_annotation != "None"

    @functools.wraps(method)
    def call(self: Any, *arguments: Any) -> tuple[Any, ...]:
        try:
            value = method(self, *arguments)
        except Fault as fault:
            return (fault.status, None) if gives else (fault.status,)
        return (Status.cudaSuccess, value) if gives else (Status.cudaSuccess,)

    return call


class Runtime:
    """``cuda.bindings.runtime``, as far as it is used."""

    cudaStreamNonBlocking = 1
    cudaEventDefault = 0
    cudaHostAllocDefault = 0
    cudaHostAllocMapped = 2
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, device: Device) -> None:
        self.device = device

    @_answering
    def cudaGetDeviceCount(self) -> int:
        if self.device.driver < self.device.runtime // 1000 * 1000:
            raise Fault(Status.cudaErrorInsufficientDriver)
        if not self.device.count:
            raise Fault(Status.cudaErrorNoDevice)
        return self.device.count

    @_answering
    def cudaSetDevice(self, device: int) -> None:
        assert device == 0

    @_answering
    def cudaDriverGetVersion(self) -> int:
        return self.device.driver

    @_answering
    def cudaRuntimeGetVersion(self) -> int:
        return self.device.runtime

    @_answering
    def cudaGetDeviceProperties(self, device: int) -> Any:
        major, minor = self.device.capability
        return SimpleNamespace(
            name=self.device.name.encode().ljust(256, b"\0"),
            major=major,
            minor=minor,
            integrated=int(self.device.integrated),
            totalGlobalMem=1 << 33,
        )

    @_answering
    def cudaGetErrorName(self, error: Status) -> bytes:
        return error.name.encode()

    @_answering
    def cudaGetErrorString(self, error: Status) -> bytes:
        return error.name.removeprefix("cudaError").lower().encode()

    @_answering
    def cudaStreamCreateWithFlags(self, flags: int) -> int:
        assert flags == self.cudaStreamNonBlocking
        return self.device.create_stream()

    @_answering
    def cudaStreamDestroy(self, stream: int) -> None:
        self.device.destroy("streams", stream)

    @_answering
    def cudaStreamSynchronize(self, stream: int) -> None:
        self.device.synchronize(stream)

    @_answering
    def cudaMalloc(self, size: int) -> int:
        return self.device.take(size, "device")

    @_answering
    def cudaFree(self, address: int) -> None:
        self.device.give(address, ("device",))

    @_answering
    def cudaHostAlloc(self, size: int, flags: int) -> int:
        return self.device.take(size, "mapped" if flags == self.cudaHostAllocMapped else "host")

    @_answering
    def cudaFreeHost(self, address: int) -> None:
        self.device.give(address, ("host", "mapped"))

    @_answering
    def cudaHostGetDevicePointer(self, host: int, flags: int) -> int:
        self.device.require(host, 1, "mapped")
        return host

    @_answering
    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: int, stream: int) -> None:
        kinds = {1: ("device", "host"), 2: ("host", "device"), 3: ("device", "device")}[kind]
        self.device.copy((dst, kinds[0]), (src, kinds[1]), count, stream)

    @_answering
    def cudaEventCreateWithFlags(self, flags: int) -> int:
        return self.device.create_event()

    @_answering
    def cudaEventDestroy(self, event: int) -> None:
        self.device.destroy("events", event)

    @_answering
    def cudaEventRecord(self, event: int, stream: int) -> None:
        self.device.record(event, stream)

    @_answering
    def cudaEventSynchronize(self, event: int) -> None:
        self.device.wait(event)

    @_answering
    def cudaEventElapsedTime(self, start: int, end: int) -> float:
        return self.device.elapsed(start, end)

    @_answering
    def cudaStreamBeginCapture(self, stream: int, mode: int) -> None:
        assert mode == 1
        self.device.begin_capture(stream)

    @_answering
    def cudaStreamEndCapture(self, stream: int) -> Any:
        return self.device.end_capture(stream)

    @_answering
    def cudaGraphInstantiateWithFlags(self, graph: Any, flags: int) -> int:
        return self.device.instantiate(graph)

    @_answering
    def cudaGraphDestroy(self, graph: Any) -> None:
        assert isinstance(graph, list)

    @_answering
    def cudaGraphLaunch(self, graph: int, stream: int) -> None:
        self.device.launch(graph, stream)

    @_answering
    def cudaGraphExecDestroy(self, graph: int) -> None:
        self.device.destroy("graphs", graph)


class DriverApi:
    """``cuda.bindings.driver``, as far as it is used."""

    def __init__(self, device: Device) -> None:
        self.device = device

    @_answering
    def cuModuleLoadData(self, image: bytes) -> int:
        return self.device.load_module(image)

    @_answering
    def cuModuleUnload(self, module: int) -> None:
        self.device.destroy("modules", module)

    @_answering
    def cuModuleGetFunction(self, module: int, name: bytes) -> int:
        return self.device.kernel(module, name.decode())

    @_answering
    def cuLaunchKernel(self, kernel: int, *rest: int) -> None:
        grid, block, (shared, stream, parameters, extra) = rest[:3], rest[3:6], rest[6:]
        assert (shared, extra) == (0, 0)
        address = ctypes.c_void_p.from_address(parameters).value or 0
        size = kernels.size_of(self.device.kernels[kernel][1])
        argument = ctypes.string_at(address, size)
        self.device.launch_kernel(kernel, grid, block, argument, stream)

    @_answering
    def cuGetErrorName(self, error: Status) -> bytes:
        return error.name.replace("cudaError", "CUDA_ERROR_").encode()

    cuGetErrorString = cuGetErrorName


class PycudaError(Exception):
    """``pycuda._driver.Error``."""


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    """Raise as pycuda does, and refuse a call while the context is not current."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        driver: Driver = getattr(self, "driver", self)
        if not driver.pushed():
            raise PycudaError(f"{method.__name__} failed: invalid device context")
        try:
            return method(self, *arguments, **named)
        except Fault as fault:
            raise PycudaError(f"{method.__name__} failed: {fault.status.name}") from fault

    return call


class _Owned:
    """What frees itself when it is told to, or when Python drops it."""

    def __init__(self, driver: Driver, handle: int) -> None:
        self.driver, self.handle = driver, handle


class _Stream(_Owned):
    @_checked
    def synchronize(self) -> None:
        self.driver.device.synchronize(self.handle)

    def __del__(self) -> None:
        assert self.driver.pushed()
        self.driver.device.destroy("streams", self.handle)


class _Event(_Owned):
    @_checked
    def record(self, stream: _Stream) -> None:
        self.driver.device.record(self.handle, stream.handle)

    @_checked
    def synchronize(self) -> None:
        self.driver.device.wait(self.handle)

    @_checked
    def time_till(self, end: _Event) -> float:
        return self.driver.device.elapsed(self.handle, end.handle)

    def __del__(self) -> None:
        assert self.driver.pushed()
        self.driver.device.destroy("events", self.handle)


class _Memory(_Owned):
    def __index__(self) -> int:
        return self.handle

    @_checked
    def free(self) -> None:
        self.driver.device.give(self.handle, ("device",))


class _Pagelocked(_Owned):
    @_checked
    def free(self) -> None:
        self.driver.device.give(self.handle, ("host", "mapped"))

    @_checked
    def get_device_pointer(self) -> int:
        self.driver.device.require(self.handle, 1, "mapped")
        return self.handle


class _Function:
    def __init__(self, driver: Driver, handle: int) -> None:
        self.driver, self.handle = driver, handle

    @_checked
    def __call__(self, value: Any, *, grid: Any, block: Any, stream: _Stream) -> None:
        assert isinstance(value, np.ndarray)
        self.driver.device.launch_kernel(self.handle, grid, block, bytes(value), stream.handle)


class _Module(_Owned):
    @_checked
    def get_function(self, name: str) -> _Function:
        return _Function(self.driver, self.driver.device.kernel(self.handle, name))

    def __del__(self) -> None:
        assert self.driver.pushed()
        self.driver.device.destroy("modules", self.handle)


class _Context:
    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def push(self) -> None:
        self.driver.stack().append(self)

    def pop(self) -> None:
        self.driver.stack().pop()


class Driver:
    """``pycuda.driver``, as far as it is used."""

    Error = PycudaError
    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
    device_attribute = SimpleNamespace(INTEGRATED="integrated")

    def __init__(self, device: Device) -> None:
        self.device = device
        self._threads = threading.local()
        driver = self

        class OneDevice:
            def __init__(self, ordinal: int) -> None:
                assert ordinal == 0

            @staticmethod
            def count() -> int:
                return device.count

            def name(self) -> str:
                return device.name

            def compute_capability(self) -> tuple[int, int]:
                return device.capability

            def get_attribute(self, attribute: str) -> int:
                return int(getattr(device, attribute))

            def total_memory(self) -> int:
                return 1 << 33

            def retain_primary_context(self) -> _Context:
                return _Context(driver)

        self.Device = OneDevice

    def stack(self) -> list[_Context]:
        """Contexts that this thread pushed."""
        self._threads.__dict__.setdefault("stack", [])
        contexts: list[_Context] = self._threads.stack
        return contexts

    def pushed(self) -> bool:
        return bool(self.stack())

    def init(self) -> None:
        if not self.device.driver:
            raise PycudaError("cuInit failed: no CUDA-capable device is detected")

    def get_version(self) -> tuple[int, int, int]:
        return self.device.runtime // 1000, self.device.runtime % 1000 // 10, 0

    def get_driver_version(self) -> int:
        return self.device.driver

    @_checked
    def Stream(self, flags: int = 0) -> _Stream:
        assert flags == 1
        return _Stream(self, self.device.create_stream())

    @_checked
    def Event(self) -> _Event:
        return _Event(self, self.device.create_event())

    @_checked
    def mem_alloc(self, nbytes: int) -> _Memory:
        return _Memory(self, self.device.take(nbytes, "device"))

    @_checked
    def pagelocked_empty(self, shape: int, dtype: str, mem_flags: int = 0) -> Any:
        kind = "mapped" if mem_flags == 2 else "host"
        address = self.device.take(shape, kind)
        return SimpleNamespace(
            ctypes=SimpleNamespace(data=address), base=_Pagelocked(self, address)
        )

    @_checked
    def memcpy_htod_async(self, dest: int, src: Any, stream: _Stream) -> None:
        self.device.copy((dest, "device"), (_address(src), "host"), len(src), stream.handle)

    @_checked
    def memcpy_dtod_async(self, dest: int, src: int, size: int, stream: _Stream) -> None:
        self.device.copy((dest, "device"), (src, "device"), size, stream.handle)

    @_checked
    def module_from_buffer(self, buffer: bytes) -> _Module:
        return _Module(self, self.device.load_module(buffer))

    @_checked
    def memcpy_dtoh_async(self, dest: Any, src: int, stream: _Stream) -> None:
        self.device.copy((_address(dest), "host"), (src, "device"), len(dest), stream.handle)


class Library:
    """Graphs of ``libcuda.so.1``, called with the types of ctypes."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.device = driver, driver.device
        self._noted: dict[int, Any] = {}

    def _answer(self, work: Callable[[], Any]) -> int:
        if not self.driver.pushed():
            return int(Status.cudaErrorDeviceUninitialized)
        try:
            work()
        except Fault as fault:
            return int(fault.status)
        return 0

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: ctypes.c_int) -> int:
        assert mode.value == 1
        return self._answer(lambda: self.device.begin_capture(stream.value or 0))

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:
        def work() -> None:
            noted = self.device.end_capture(stream.value or 0)
            graph._obj.value = len(self._noted) + 1
            self._noted[graph._obj.value] = noted

        return self._answer(work)

    def cuGraphInstantiateWithFlags(self, ready: Any, graph: Any, flags: Any) -> int:
        def work() -> None:
            ready._obj.value = self.device.instantiate(self._noted[graph.value])

        return self._answer(work)

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        return self._answer(lambda: self._noted[graph.value or 0])

    def cuGraphLaunch(self, graph: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        return self._answer(lambda: self.device.launch(graph.value or 0, stream.value or 0))

    def cuGraphExecDestroy(self, graph: ctypes.c_void_p) -> int:
        return self._answer(lambda: self.device.destroy("graphs", graph.value or 0))

    def cuGetErrorName(self, status: ctypes.c_int, text: Any) -> int:
        text._obj.value = Status(status.value).name.encode()
        return 0

    cuGetErrorString = cuGetErrorName


def _address(buffer: Any) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)
