"""Both adapters do the same on a stand-in GPU, and the stand-in finds what a real one hides."""

import gc
import inspect
import re
import sys
from collections.abc import Callable
from ctypes import c_int, c_void_p
from functools import partial
from typing import Any

import numpy as np
import pytest
from engines.plans import adapter
from standin.cuda import Driver, Library, Runtime
from standin.device import POISON, Device, Fault, Status

from edgeseg.engines.cuda import Cuda, DeviceMemory, open_cuda
from edgeseg.engines.cuda.cuda_python import CudaPython
from edgeseg.engines.cuda.pycuda import PyCuda
from edgeseg.errors import DeviceError, RuntimeMissing, UsageError

Opener = Callable[[Device], Cuda]


@pytest.fixture(params=["cuda-python", "pycuda"])
def opened(request: pytest.FixtureRequest) -> Opener:
    return partial(adapter, request.param)


def doubled_on_the_way(cuda: Cuda, memory: DeviceMemory) -> tuple[Any, Any, Callable[[int], None]]:
    """Page-locked arrays and what queues a copy from one to the other through the device."""
    source, target = memory.pinned((5,), np.int32), memory.pinned((5,), np.int32)
    between = memory.device(20)

    def copies(stream: int) -> None:
        cuda.copy_in(between, source.address, 20, stream)
        cuda.copy_out(target.address, between, 20, stream)

    return source.array, target.array, copies


def test_the_facts_of_a_gpu(opened: Opener) -> None:
    facts = opened(Device("Orin", (8, 7), integrated=True, driver=12060, runtime=12060)).facts
    assert (facts.name, facts.target, facts.integrated) == ("Orin", "sm_87", True)
    assert (facts.driver_version, facts.runtime_version) == ("12.6", "12.6")
    assert facts.memory_mib == 8192


def test_copies_arrive_once_somebody_waits(opened: Opener) -> None:
    device = Device()
    cuda = opened(device)
    with DeviceMemory(cuda) as memory:
        stream = memory.stream()
        source, target, copies = doubled_on_the_way(cuda, memory)
        source[:], target[:] = [1, 2, 3, 4, 5], 0
        copies(stream)
        assert not target.any()
        cuda.synchronize(stream)
        assert target.tolist() == [1, 2, 3, 4, 5]


def test_a_graph_repeats_what_was_captured(opened: Opener) -> None:
    device = Device()
    cuda = opened(device)
    with DeviceMemory(cuda) as memory:
        stream = memory.stream()
        source, target, copies = doubled_on_the_way(cuda, memory)
        target[:] = 0
        cuda.begin_capture(stream)
        copies(stream)
        graph = cuda.end_capture(stream)
        cuda.synchronize(stream)
        assert not target.any()  # noted down, not done
        for value in (7, 9):
            source[:] = value
            cuda.launch(graph, stream)
            cuda.synchronize(stream)
            assert (target == value).all()
        cuda.destroy_graph(graph)
        with pytest.raises(DeviceError, match="cudaErrorInvalidResourceHandle"):
            cuda.launch(graph, stream)


def test_events_tell_milliseconds(opened: Opener) -> None:
    cuda = opened(Device())
    with DeviceMemory(cuda) as memory:
        stream, start, end = memory.stream(), memory.event(), memory.event()
        cuda.record(start, stream)
        cuda.record(end, stream)
        cuda.synchronize(stream)
        assert cuda.elapsed_ms(start, end) > 0


def test_what_may_not_be_done_in_a_capture_ends_it(opened: Opener) -> None:
    cuda = opened(Device())
    with DeviceMemory(cuda) as memory:
        stream = memory.stream()
        for forbidden in (lambda: cuda.synchronize(stream), lambda: cuda.allocate(4)):
            cuda.begin_capture(stream)
            with pytest.raises(DeviceError, match="StreamCaptureUnsupported"):
                forbidden()
            with pytest.raises(DeviceError, match="StreamCaptureInvalidated"):
                cuda.end_capture(stream)
            cuda.synchronize(stream)  # out of capture mode


def test_mapped_memory_needs_no_copy(opened: Opener) -> None:
    device = Device(integrated=True)
    cuda = opened(device)
    with DeviceMemory(cuda) as memory:
        array = memory.pinned((2, 3), np.float32, mapped=True)
        assert array.device is not None
        device.require(array.device, 24, "device", "mapped")
        plain = memory.pinned((2, 3), np.float32)
        with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
            cuda.device_address(plain.address)


def test_everything_is_given_back(opened: Opener) -> None:
    device = Device()
    cuda = opened(device)
    with DeviceMemory(cuda) as memory:
        memory.stream(), memory.event(), memory.device(64), memory.pinned((4,), np.uint8)
        assert sorted(device.live()) == ["device memory", "event", "stream"]  # no array, no block
        kept = memory.pinned((4,), np.uint8).array
    memory.close()
    assert device.live() == ["host memory"]
    kept[:] = 3
    part = kept[1:3]
    del kept
    gc.collect()
    assert part.tolist() == [3, 3]  # a view keeps it
    del part
    assert device.live() == []


@pytest.mark.parametrize("refused", [1, 2, 3, 4, 5])
def test_a_refusal_at_any_point_leaves_nothing_behind(opened: Opener, refused: int) -> None:
    device = Device(fail_at=refused)
    cuda = opened(device)

    def all_of_it() -> None:
        with DeviceMemory(cuda) as memory:
            arrays = [memory.pinned((8,), np.float32)]
            memory.device(32)
            memory.stream()
            arrays.append(memory.pinned((8,), np.uint8, mapped=True))
            memory.event()

    with pytest.raises(DeviceError, match="cudaErrorMemoryAllocation"):
        all_of_it()
    gc.collect()
    assert device.live() == []


def test_giving_back_twice_and_what_is_foreign_is_an_error(opened: Opener) -> None:
    cuda = opened(Device())
    address = cuda.allocate(8)
    cuda.free(address)
    with pytest.raises((DeviceError, KeyError)):
        cuda.free(address)


def test_the_stand_in_finds_memory_that_is_used_after_its_end() -> None:
    device = Device()
    cuda = adapter("cuda-python", device)
    stream, gone, host = cuda.create_stream(), cuda.allocate(4), cuda.allocate_host(4, mapped=False)
    cuda.free(gone)
    assert bytes(device.graveyard[0].memory) == bytes([POISON] * 4)
    cuda.copy_in(gone, host, 4, stream)
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
        cuda.synchronize(stream)
    cuda.copy_in(host, host, 4, stream)  # host memory where the device's was meant
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
        cuda.synchronize(stream)
    assert device.live() == ["host memory", "stream"]  # a leak is seen


def test_pycuda_is_called_with_its_context_pushed_and_leaves_none() -> None:
    device = Device()
    driver = Driver(device)
    cuda = PyCuda(driver, Library(driver))
    with cuda.current():
        assert driver.pushed()
        with DeviceMemory(cuda) as memory:
            memory.device(4)
    assert not driver.pushed()
    with pytest.raises(driver.Error, match="invalid device context"):
        driver.mem_alloc(4)
    with pytest.raises(ZeroDivisionError), cuda.current():
        raise ZeroDivisionError
    assert not driver.pushed()
    status = Library(driver).cuStreamBeginCapture_v2(c_void_p(1), c_int(1))
    assert status == Status.cudaErrorDeviceUninitialized


@pytest.mark.parametrize(
    ("device", "said", "hint"),
    [
        (Device(driver=0), "no NVIDIA driver", "install the driver"),
        (Device(driver=12060), r"serves CUDA 12\.6, this cuda-python is for 13\.0", "python<13"),
        (Device(count=0), r"no GPU: cudaErrorNoDevice", "nvidia-smi"),
    ],
    ids=["no driver", "driver of CUDA 12", "no GPU"],
)
def test_what_is_missing_is_said(device: Device, said: str, hint: str) -> None:
    with pytest.raises(RuntimeMissing, match=said) as caught:
        CudaPython(Runtime(device))
    assert hint in str(caught.value.hint)


def test_the_variable_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda.bindings.runtime", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delenv("EDGESEG_CUDA", raising=False)
    with pytest.raises(RuntimeMissing, match="needs cuda-python") as caught:
        open_cuda()
    assert "pip install 'edgeseg[cuda]'" in str(caught.value.hint)
    monkeypatch.setenv("EDGESEG_CUDA", "pycuda")
    with pytest.raises(RuntimeMissing, match="pycuda cannot be imported"):
        open_cuda()
    with pytest.raises(RuntimeMissing, match="needs cuda-python"):
        open_cuda("cuda-python")
    monkeypatch.setenv("EDGESEG_CUDA", "cupy")
    with pytest.raises(UsageError, match="'cuda-python' or 'pycuda', not 'cupy'"):
        open_cuda()


def test_the_real_bindings_have_what_is_called_with_these_arguments() -> None:
    """The stand-in's own promise: cuda-python imports without a GPU, so it can be asked."""
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    for name, method in inspect.getmembers(Runtime, inspect.isfunction):
        if not name.startswith("cuda"):
            continue
        (written,) = re.findall(rf"^{name}\((.*?)\)", getattr(real, name).__doc__)[:1]
        taken = [each for each in written.split(", ") if each]
        assert len(taken) == len(inspect.signature(method).parameters) - 1, name
    for name in ("cudaStreamNonBlocking", "cudaEventDefault", "cudaHostAllocMapped"):
        assert int(getattr(real, name)) == getattr(Runtime, name)
    for number, way in enumerate(("HostToDevice", "DeviceToHost", "DeviceToDevice"), 1):
        assert int(getattr(real.cudaMemcpyKind, f"cudaMemcpy{way}")) == number
    assert int(real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal) == 1
    assert {s.name: s.value for s in Status} == {
        s.name: int(getattr(real.cudaError_t, s.name)) for s in Status
    }
    properties = real.cudaDeviceProp()
    for name in ("name", "major", "minor", "integrated", "totalGlobalMem"):
        assert hasattr(properties, name)


def test_the_real_driver_bindings_take_these_arguments() -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")
    for name in ("cuModuleLoadData", "cuModuleUnload", "cuModuleGetFunction", "cuLaunchKernel"):
        (written,) = re.findall(rf"^{name}\((.*?)\)", getattr(real, name).__doc__)[:1]
        wanted = {"cuLaunchKernel": 11, "cuModuleGetFunction": 2}.get(name, 1)
        assert len(written.split(", ")) == wanted
    # Handles and the place of the arguments are plain integers.
    for handle in (real.CUmodule, real.CUfunction, real.CUstream):
        assert int(handle(4096)) == 4096


def test_a_driver_that_does_not_load_is_told_as_missing() -> None:
    """The runtime's library may be there without libcuda: frames then stay on the processor."""
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")
    try:
        real.cuInit(0)
    except RuntimeError:
        pass
    else:
        pytest.skip("this machine has a CUDA driver")
    with pytest.raises(RuntimeMissing, match="CUDA driver does not load"):
        CudaPython(Runtime(Device()), real).load_module(b"")


def test_the_stand_in_refuses_what_is_not_its_own() -> None:
    device = Device()
    with pytest.raises(Fault, match="InvalidResourceHandle"):
        device.synchronize(5)
    with pytest.raises(Fault, match="InvalidResourceHandle"):
        device.destroy("events", 5)
