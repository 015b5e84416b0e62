"""Run a build with progress display and cancellation."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from edgeseg.console import Track

_STEPS = 1000


def compile_network(trt: Any, builder: Any, network: Any, config: Any, track: Track) -> Any:
    """``build_serialized_network``, shown by ``track``; Ctrl-C ends it and raises as usual.

    TensorRT builds in a thread of its own: an exception out of one of its callbacks would end
    the process, and this thread is where Python raises KeyboardInterrupt. Version 8.6 has no
    way to be called off, and is waited for.
    """
    progress = _Progress()
    if hasattr(trt, "IProgressMonitor"):
        # Kept by name: the configuration does not keep it alive.
        monitor = _monitor(trt, progress)
        config.progress_monitor = monitor
    result: list[Any] = []

    def work() -> None:
        try:
            result.append(builder.build_serialized_network(network, config))
        except BaseException as error:
            result.append(error)
        finally:
            progress.finish()

    worker = threading.Thread(target=work, name="TensorRT build")
    worker.start()
    try:
        for _ in track(progress.steps(), "compiling the engine", _STEPS):
            pass
    except BaseException:
        progress.cancelled.set()
        raise
    finally:
        worker.join()
    (made,) = result
    if isinstance(made, BaseException):
        raise made
    return made


class _Progress:
    """Merges nested phases with steps into one rising fraction, passed between threads."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._phases: dict[str, tuple[str | None, int, int]] = {}
        self._fractions: queue.SimpleQueue[float | None] = queue.SimpleQueue()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._phases[name] = (parent, max(1, steps), 0)

    def step(self, name: str, done: int) -> None:
        parent, steps, _ = self._phases[name]
        self._phases[name] = (parent, steps, min(done, steps))
        fraction = 0.0
        inner: str | None = name
        while inner is not None:
            outer, steps, done = self._phases[inner]
            fraction = min(1.0, (done + fraction) / steps)
            inner = outer if outer in self._phases else None
        self._fractions.put(fraction)

    def finish(self) -> None:
        self._fractions.put(None)

    def steps(self) -> Iterator[int]:
        """One item for each thousandth, as they come to pass."""
        shown = 0
        while (fraction := self._fractions.get()) is not None:
            while shown < int(fraction * _STEPS):
                yield shown
                shown += 1
        yield from range(shown, _STEPS)


def _monitor(trt: Any, progress: _Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.step(phase_name, step + 1)
            return not progress.cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()
