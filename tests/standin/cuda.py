"""The three faces of a stand-in GPU: ``cuda.bindings.runtime``, ``pycuda.driver``, libcuda."""

# ruff: noqa: N802, N815 - the names are CUDA's

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from standin import kernels
from standin.device import Device, Fault, Status


def _answering(work: Callable[..., Any], *, gives: bool) -> Callable[..., tuple[Any, ...]]:
    """Answer as cuda-python does: the status, and what there is besides."""

    @functools.wraps(work)
    def call(self: Any, *arguments: Any) -> tuple[Any, ...]:
        try:
            value = work(self.device, *arguments)
        except Fault as fault:
            return (fault.status, None) if gives else (fault.status,)
        return (Status.cudaSuccess, value) if gives else (Status.cudaSuccess,)

    return call


_gives = functools.partial(_answering, gives=True)
_does = functools.partial(_answering, gives=False)


def _count(gpu: Device) -> int:
    if gpu.driver < gpu.runtime // 1000 * 1000:
        raise Fault(Status.cudaErrorInsufficientDriver)
    if not gpu.count:
        raise Fault(Status.cudaErrorNoDevice)
    return gpu.count


def _select(gpu: Device, ordinal: int) -> None:
    assert ordinal == 0


def _properties(gpu: Device, ordinal: int) -> Any:
    return SimpleNamespace(
        name=gpu.name.encode().ljust(256, b"\0"),
        major=gpu.capability[0],
        minor=gpu.capability[1],
        integrated=int(gpu.integrated),
        totalGlobalMem=1 << 33,
    )


def _stream(gpu: Device, flags: int) -> int:
    assert flags == Runtime.cudaStreamNonBlocking
    return gpu.create_stream()


def _capture(gpu: Device, stream: int, mode: int) -> None:
    assert mode == 1
    gpu.begin_capture(stream)


def _of_host(gpu: Device, address: int, flags: int = 0) -> int:
    gpu.require(address, 1, "mapped")
    return address


def _copy(gpu: Device, dst: int, src: int, count: int, kind: int, stream: int) -> None:
    kinds = {1: ("device", "host"), 2: ("host", "device"), 3: ("device", "device")}[kind]
    gpu.copy((dst, kinds[0]), (src, kinds[1]), count, stream)


def _launch(gpu: Device, kernel: int, *rest: int) -> None:
    grid, block, (shared, stream, parameters, extra) = rest[:3], rest[3:6], rest[6:]
    assert (shared, extra) == (0, 0)
    address = ctypes.c_void_p.from_address(parameters).value or 0
    argument = ctypes.string_at(address, kernels.size_of(gpu.kernels[kernel][1]))
    gpu.launch_kernel(kernel, grid, block, argument, stream)


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

    cudaGetDeviceCount = _gives(_count)
    cudaSetDevice = _does(_select)
    cudaDriverGetVersion = _gives(lambda gpu: gpu.driver)
    cudaRuntimeGetVersion = _gives(lambda gpu: gpu.runtime)
    cudaGetDeviceProperties = _gives(_properties)
    cudaGetErrorName = _gives(lambda gpu, error: error.name.encode())
    cudaGetErrorString = _gives(lambda gpu, e: e.name.removeprefix("cudaError").lower().encode())
    cudaStreamCreateWithFlags = _gives(_stream)
    cudaStreamDestroy = _does(lambda gpu, stream: gpu.destroy("streams", stream))
    cudaStreamSynchronize = _does(lambda gpu, stream: gpu.synchronize(stream))
    cudaMalloc = _gives(lambda gpu, size: gpu.take(size, "device"))
    cudaFree = _does(lambda gpu, address: gpu.give(address, ("device",)))
    cudaHostAlloc = _gives(lambda gpu, size, flags: gpu.take(size, "mapped" if flags else "host"))
    cudaFreeHost = _does(lambda gpu, address: gpu.give(address, ("host", "mapped")))
    cudaHostGetDevicePointer = _gives(_of_host)
    cudaMemcpyAsync = _does(_copy)
    cudaEventCreateWithFlags = _gives(lambda gpu, flags: gpu.create_event())
    cudaEventDestroy = _does(lambda gpu, event: gpu.destroy("events", event))
    cudaEventRecord = _does(lambda gpu, event, stream: gpu.record(event, stream))
    cudaEventSynchronize = _does(lambda gpu, event: gpu.wait(event))
    cudaEventElapsedTime = _gives(lambda gpu, start, end: gpu.elapsed(start, end))
    cudaStreamBeginCapture = _does(_capture)
    cudaStreamEndCapture = _gives(lambda gpu, stream: gpu.end_capture(stream))
    cudaGraphInstantiateWithFlags = _gives(lambda gpu, graph, flags: gpu.instantiate(graph))
    cudaGraphDestroy = _does(lambda gpu, graph: len(graph))  # a captured list
    cudaGraphLaunch = _does(lambda gpu, graph, stream: gpu.launch(graph, stream))
    cudaGraphExecDestroy = _does(lambda gpu, graph: gpu.destroy("graphs", graph))


class DriverApi:
    """``cuda.bindings.driver``, as far as it is used."""

    def __init__(self, device: Device) -> None:
        self.device = device

    cuModuleLoadData = _gives(lambda gpu, image: gpu.load_module(image))
    cuModuleUnload = _does(lambda gpu, module: gpu.destroy("modules", module))
    cuModuleGetFunction = _gives(lambda gpu, module, name: gpu.kernel(module, name.decode()))
    cuLaunchKernel = _does(_launch)
    cuGetErrorName = _gives(lambda gpu, e: e.name.replace("cudaError", "CUDA_ERROR_").encode())
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
