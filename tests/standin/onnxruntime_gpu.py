"""What onnxruntime-gpu adds, over the real ONNX Runtime on the processor.

A session takes addresses of the device, and runs once somebody waits for the stream it was told.
Names and arguments are those of the real module, whose own binding of memory by address does the
work: device memory is host memory here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as real

from standin.device import Device


class Module:
    """``onnxruntime`` of onnxruntime-gpu, as far as it is used; the rest is the real one's."""

    def __init__(self, device: Device, *, starts: bool = True) -> None:
        self._device, self._starts = device, starts

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(  # noqa: N802
        self, path: Any, options: Any, providers: Sequence[Any]
    ) -> Any:
        if list(providers) == ["CPUExecutionProvider"]:
            return real.InferenceSession(path, options, providers=providers)
        (name, settings), rest = providers
        assert (name, rest) == ("CUDAExecutionProvider", "CPUExecutionProvider")
        assert settings["device_id"] == "0"
        stream = int(settings["user_compute_stream"])
        return _Session(self._device, real.InferenceSession(path, options), stream, self._starts)


class _Session:
    def __init__(self, device: Device, session: Any, stream: int, starts: bool) -> None:
        self._device, self._session, self._stream = device, session, stream
        self._starts = starts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [*(["CUDAExecutionProvider"] if self._starts else []), "CPUExecutionProvider"]

    def io_binding(self) -> _Binding:
        return _Binding(self._device, self._session)

    def run_with_iobinding(self, iobinding: _Binding, run_options: Any = None) -> None:
        entry = "disable_synchronize_execution_providers"
        self._device.queue(self._stream, lambda: iobinding.run(self._session))
        if run_options is None or run_options.get_run_config_entry(entry) != "1":
            self._device.synchronize(self._stream)


class _Binding:
    def __init__(self, device: Device, session: Any) -> None:
        self._device = device
        self._binding = session.io_binding()
        self._places: list[tuple[int, int]] = []

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: Sequence[int],
        buffer_ptr: int,
    ) -> None:
        assert (device_type, device_id) == ("cuda", 0)
        self._places.append((buffer_ptr, int(np.prod(shape)) * np.dtype(element_type).itemsize))
        self._binding.bind_input(name, "cpu", 0, element_type, shape, buffer_ptr)

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] = (),
        buffer_ptr: int = 0,
    ) -> None:
        assert (device_type, device_id) == ("cuda", 0)
        self._places.append((buffer_ptr, int(np.prod(shape)) * np.dtype(element_type).itemsize))
        self._binding.bind_output(name, "cpu", 0, element_type, shape, buffer_ptr)

    def run(self, session: Any) -> None:
        for place in self._places:
            self._device.require(*place, "device")
        session.run_with_iobinding(self._binding)
