"""Open and run TensorRT engines on the GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.sidecar import SideCar
from edgeseg.engines.base import Capabilities, Engine
from edgeseg.engines.cuda import Cuda, open_cuda
from edgeseg.engines.pipeline import FramePipeline
from edgeseg.engines.tensorrt.library import library
from edgeseg.engines.tensorrt.pipeline import GpuPipeline
from edgeseg.engines.tensorrt.preflight import EngineFile, Host, check, twin, warn_if_stale
from edgeseg.engines.tensorrt.session import Session
from edgeseg.errors import CorruptArtifact, DeviceError, RuntimeMissing, UsageError

logger = logging.getLogger(__name__)


class TensorRtEngine(Engine):
    """A plan of TensorRT or TensorRT-RTX on the first GPU.

    Label maps lie in page-locked memory that the next call overwrites; those that were kept stay
    readable after :meth:`close`. Calls may come from different threads, one at a time.

    Args:
        engine: ``model.PRECISION.engine`` as it was read; nothing but the bytes that its
            side-car vouches for may reach TensorRT.
        trt: The module ``tensorrt`` or ``tensorrt_rtx``, whichever the side-car names.
        graph: Replay a CUDA graph from the second call of a shape on. Never done with a DLA.

    Raises:
        MismatchedArtifact: It was made for another version, GPU or platform.
        DeviceError: The GPU failed, or has not enough memory.
    """

    def __init__(self, engine: EngineFile, trt: Any, cuda: Cuda, *, graph: bool = True) -> None:
        self.path, self.card = engine.path, engine.sidecar.card
        self.runtime = engine.sidecar.runtime
        self.cuda = cuda
        self._pipelines: list[FramePipeline] = []
        check(engine, Host(str(trt.__version__), cuda.facts))
        warn_if_stale(engine.path, engine.sidecar)
        with self.on_gpu():
            self._session: Session | None = Session(engine, trt, cuda, graph=graph)
        tensors = self._session.tensors
        low, high = tensors.smallest[0], tensors.largest[0]
        self.capabilities = Capabilities(low if low == high else None, high, frames_on_gpu=True)

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        session = self.session_for(batch.shape)
        with self.on_gpu():
            return session.tensors.labels(session.run(batch))

    def warm_up(self, runs: int = 2) -> None:
        """Run on zeros, and keep the kernels that TensorRT-RTX compiled for it."""
        super().warm_up(runs)
        with self.on_gpu():
            self._open_session().keep_kernels()

    def open_pipeline(self) -> FramePipeline:
        """Like :meth:`Engine.open_pipeline`, on the GPU if there are kernels for it.

        Raises:
            UsageError: The engine was closed.
            DeviceError: The GPU failed, or has not enough memory.
        """
        self._open_session()
        if not self.capabilities.frames_on_gpu:
            return super().open_pipeline()
        try:
            pipeline = GpuPipeline(self)
        except RuntimeMissing as error:
            self.capabilities = replace(self.capabilities, frames_on_gpu=False)
            logger.warning(
                "frames of %s are preprocessed and drawn on the processor, not on the GPU: %s",
                *(self.path.name, error.message),
            )
            return super().open_pipeline()
        self._pipelines = [*(each for each in self._pipelines if not each.closed), pipeline]
        return pipeline

    def profile(self, batch: NDArray[np.float32]) -> list[tuple[str, float]]:
        """Milliseconds of each layer for one batch, in the order in which they ran.

        Slower in all than :meth:`infer`: TensorRT times each layer, and no graph is replayed.

        Raises:
            UsageError: The engine was closed, or takes no such batch.
            InferenceError: It failed.
        """
        self.infer(batch)  # Which checks the batch, and compiles what is not yet.
        with self.on_gpu():
            return self._open_session().profile()

    def close(self) -> None:
        """Keep what was compiled, and give back all that is on the GPU."""
        pipelines, self._pipelines = self._pipelines, []
        for pipeline in pipelines:  # before the memory that they use
            pipeline.close()
        session, self._session = self._session, None
        if session is not None:
            with self.on_gpu():
                session.keep_kernels()
                session.close()

    def _open_session(self) -> Session:
        if self._session is None:
            raise UsageError(f"{self.path.name} was closed")
        return self._session

    def session_for(self, shape: tuple[int, ...]) -> Session:
        """Return the session if the engine takes an input of ``shape``; else raise UsageError."""
        session = self._open_session()
        tensors = session.tensors
        if not tensors.takes(shape):
            raise UsageError(
                f"{self.path.name} takes shapes from {tensors.smallest} to {tensors.largest}, "
                f"not {shape}",
                hint="build it for that: `edgeseg build` with --batch or --sizes, each "
                "SMALLEST:TYPICAL:LARGEST",
            )
        return session

    @contextmanager
    def on_gpu(self) -> Iterator[None]:
        """Make the device current, and name the engine in its errors."""
        try:
            with self.cuda.current():
                yield
        except DeviceError as error:
            raise DeviceError(f"{self.path}: {error.message}", hint=error.hint) from error


def open_plan(path: Path, *, cuda: Cuda | None = None, graph: bool = True) -> TensorRtEngine:
    """Open ``model.PRECISION.engine``; the bytes are checked before any library is loaded.

    Args:
        path: The engine, its side-car beside it.
        cuda: The GPU; what :func:`~edgeseg.engines.cuda.open_cuda` gives by default.
        graph: Replay CUDA graphs.

    Raises:
        ArtifactError: The engine was altered, has no valid side-car, or was made for another
            machine.
        RuntimeMissing: The library, the driver or a GPU is missing; the message names the network
            to use instead.
        DeviceError: The GPU failed.
    """
    engine = EngineFile.read(path)
    sidecar = engine.sidecar
    if sidecar.runtime not in ("tensorrt", "tensorrt-rtx"):
        raise CorruptArtifact(
            f"{path}: its side-car says {sidecar.runtime}, which has no .engine files",
            hint="build it again with `edgeseg build --overwrite`",
        )
    try:
        trt, cuda = library(sidecar.runtime), cuda or open_cuda()
    except RuntimeMissing as error:
        raise _cannot_run(path, sidecar, error) from error
    return TensorRtEngine(engine, trt, cuda, graph=graph)


def _cannot_run(path: Path, sidecar: SideCar, reason: RuntimeMissing) -> RuntimeMissing:
    precision = sidecar.card.precision
    built_for = sidecar.targets or tuple(filter(None, [sidecar.gpu]))
    there = twin(path, sidecar)
    made = "" if there.exists() else f" (`edgeseg build --{precision}` makes it)"
    return RuntimeMissing(
        f"{path} is an engine in {precision} for {sidecar.runtime} {sidecar.runtime_version}"
        f"{' for ' + ', '.join(built_for) if built_for else ''} and needs an NVIDIA GPU: "
        f"{reason.message}",
        hint=f"use {there} here{made}; to run the engine: {reason.hint}",
    )
