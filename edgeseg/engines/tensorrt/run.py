"""Run TensorRT engines on the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.engines.base import Engine
from edgeseg.engines.cuda import Cuda
from edgeseg.engines.cuda.frames import open_gpu_frames
from edgeseg.engines.cuda.stages import Network
from edgeseg.engines.frames import FrameJob, FrameRunner, check_job
from edgeseg.engines.tensorrt.preflight import EngineFile, Host, check, warn_if_stale
from edgeseg.engines.tensorrt.session import Session
from edgeseg.errors import DeviceError, UsageError


class TensorRtEngine(Engine):
    """A plan of TensorRT or TensorRT-RTX on the first GPU.

    Label maps lie in page-locked memory that the next call overwrites; those that were kept stay
    readable after :meth:`close`. Calls may come from different threads, one at a time.

    Args:
        engine: ``model.PRECISION.engine`` as it was read; nothing but the bytes that its
            side-car vouches for may reach TensorRT.
        trt: The module ``tensorrt`` or ``tensorrt_rtx``, whichever the side-car names.
        cuda: The GPU.
        graph: Replay a CUDA graph from the second call of a shape on. Never done with a DLA.

    Raises:
        MismatchedArtifact: It was made for another version, GPU or platform.
        DeviceError: The GPU failed, or has not enough memory.
    """

    def __init__(self, engine: EngineFile, trt: Any, cuda: Cuda, *, graph: bool = True) -> None:
        self.path, self.card = engine.path, engine.sidecar.card
        self.runtime = engine.sidecar.runtime
        self.cuda = cuda
        self._runners: list[FrameRunner] = []
        self._said: set[str] = set()
        check(engine, Host(str(trt.__version__), cuda.facts))
        warn_if_stale(engine.path, engine.sidecar)
        with self.on_gpu():
            self._session: Session | None = Session(engine, trt, cuda, graph=graph)
        tensors = self._session.tensors
        low, high = tensors.smallest[0], tensors.largest[0]
        self.batch = low if low == high else None
        self.largest_batch = high

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        session = self._session_for(batch.shape)
        with self.on_gpu():
            return session.tensors.labels(session.run(batch))

    def warm_up(self, runs: int = 2) -> None:
        """Run on zeros, and keep the kernels that TensorRT-RTX compiled for it."""
        super().warm_up(runs)
        with self.on_gpu():
            self._open_session().keep_kernels()

    def open_frames(self, job: FrameJob) -> FrameRunner:
        """Like :meth:`Engine.open_frames`; on the GPU from upload to download if possible."""
        check_job(self, job)
        plan = _Plan(self, self._session_for((job.batch, *self.card.input.shape)))
        runner = open_gpu_frames(self, plan, job, self._said)
        self._runners = [*(each for each in self._runners if not each.closed), runner]
        return runner

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
        runners, self._runners = self._runners, []
        for runner in runners:
            runner.close()
        session, self._session = self._session, None
        if session is not None:
            with self.on_gpu():
                session.keep_kernels()
                session.close()

    def _open_session(self) -> Session:
        if self._session is None:
            raise UsageError(f"{self.path.name} was closed")
        return self._session

    def _session_for(self, shape: tuple[int, ...]) -> Session:
        """The session, if the engine takes an input of ``shape``."""
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
        """The device is current, and its errors say which engine it ran."""
        try:
            with self.cuda.current():
                yield
        except DeviceError as error:
            raise DeviceError(f"{self.path}: {error.message}", hint=error.hint) from error


class _Plan:
    """The engine as :class:`~edgeseg.engines.cuda.frames.GpuFrames` sees it."""

    def __init__(self, engine: TensorRtEngine, session: Session) -> None:
        self._engine, self._session = engine, session
        self.cuda, self.stream, self.graph = engine.cuda, session.stream, session.graph

    def network(self) -> Network:
        return self._session.network(self._engine.card)

    def guard(self) -> AbstractContextManager[None]:
        return self._engine.on_gpu()

    def settle(self, batch: int) -> tuple[int, ...]:
        return self._session.settle((batch, *self._engine.card.input.shape))

    def enqueue(self, batch: int) -> bool:
        del batch  # which is settled
        return self._session.enqueue()
