"""Benchmark cases: an engine with a batch size and a number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.documents import plural
from edgeseg.engines.base import Engine
from edgeseg.errors import RuntimeMissing
from edgeseg.loading import load

THREADED = ("onnxruntime", "openvino")
"""Runtimes whose number of threads can be set."""


@dataclass(frozen=True)
class Case:
    """One configuration to measure.

    Attributes:
        threads: Number of threads it was opened with; None for the runtime's default.
    """

    engine: Engine
    batch: int
    threads: int | None = None

    @classmethod
    def of(cls, engine: Engine, threads: int | None = None) -> Case:
        """Create a case with the engine's fixed batch size, or else one picture."""
        return cls(engine, engine.capabilities.batch or 1, threads)


@dataclass(frozen=True)
class Unavailable:
    """An artefact that is listed though it cannot run on this machine, and why not."""

    path: Path
    reason: str


@dataclass
class Opened:
    """Result of :func:`open_cases`; ``notes`` say which rows are left out."""

    cases: list[Case] = field(default_factory=list)
    unavailable: list[Unavailable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_cases(
    paths: Sequence[Path],
    stack: ExitStack,
    *,
    batches: Sequence[int] = (),
    threads: Sequence[int] = (),
    opener: Callable[..., Engine] = load,
) -> Opened:
    """Open every engine with every number of threads, for every number of pictures it takes.

    Args:
        stack: Closes the engines.
        batches: Pictures per call; if empty, the batch size of each engine.
        threads: Numbers of threads; if empty, the runtime's default.
        opener: Function that opens an engine from a path and ``threads``.

    Raises:
        EdgesegError: As the opener does, save that an engine for another machine is listed.
    """
    found = Opened()
    for path in paths:
        try:
            engines = _with_threads(path, stack, threads or (None,), opener)
        except RuntimeMissing as error:
            found.unavailable.append(Unavailable(path, error.message))
            continue
        first = engines[0][0]
        sizes, refused = _batches_of(first, batches)
        found.cases += [Case(engine, size, number) for engine, number in engines for size in sizes]
        if refused:
            sizes_refused = " or ".join(map(str, refused))
            found.notes.append(f"{path.name} {_takes(first)}: no row of {sizes_refused}.")
        if len(threads) > len(engines):
            found.notes.append(f"{first.runtime} takes no threads: {path.name} has one row.")
    return found


def _with_threads(
    path: Path, stack: ExitStack, threads: Sequence[int | None], opener: Callable[..., Engine]
) -> list[tuple[Engine, int | None]]:
    first = stack.enter_context(opener(path, threads=threads[0]))
    if first.runtime not in THREADED:
        return [(first, None)]
    others = [(stack.enter_context(opener(path, threads=n)), n) for n in threads[1:]]
    return [(first, threads[0]), *others]


def _batches_of(engine: Engine, batches: Sequence[int]) -> tuple[list[int], list[int]]:
    """Those it takes, its own where it takes none of them; and those it refuses."""
    taken = [size for size in batches if engine.capabilities.takes(size)]
    refused = [size for size in batches if size not in taken]
    return taken or [engine.capabilities.batch or 1], refused


def _takes(engine: Engine) -> str:
    fixed = engine.capabilities.batch
    if fixed is not None:
        return f"takes {plural(fixed, 'picture')} per call"
    return f"takes at most {engine.capabilities.largest_batch} pictures per call"


def label_one(engine: Engine, tensor: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Label map of one picture, repeated where the engine takes more at once.

    Args:
        engine: Any.
        tensor: (C, height, width), as :func:`edgeseg.ops.preprocess` makes it.

    Returns:
        uint8 (height, width), valid until the next call.
    """
    batch = np.repeat(tensor[np.newaxis], engine.capabilities.batch or 1, axis=0)
    labels: NDArray[np.uint8] = engine.infer(batch)[0]
    return labels


def first_of_each_path(cases: Sequence[Case]) -> Iterator[Case]:
    """One case an artefact: accuracy depends on neither batch nor threads."""
    seen: set[Path] = set()
    for case in cases:
        if case.engine.path not in seen:
            seen.add(case.engine.path)
            yield case
