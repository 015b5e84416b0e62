"""What the benchmark scripts share: command lines, turns, figures, documents, errors."""

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgeseg import machine
from edgeseg.artifacts.files import write_atomic
from edgeseg.errors import EdgesegError
from edgeseg.report.tables import Column

Case = TypeVar("Case")


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """A parser described by the first line of a script's docstring."""
    return argparse.ArgumentParser(description=(doc or "").partition("\n")[0])


def say(line: str) -> None:
    """Print a line of progress to stderr."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Print an error of edgeseg and its hint, and exit with its code."""
    try:
        yield
    except EdgesegError as error:
        say(f"error: {error.message}")
        if error.hint:
            say(f"  {error.hint}")
        raise SystemExit(error.exit_code) from error


def turns(cases: Sequence[Case], rounds: int, seed: int = 0) -> Iterator[tuple[int, Case]]:
    """Number of the round and case: each case once per round, in an order that ``seed`` fixes."""
    order = random.Random(seed)
    for number in range(rounds):
        for case in order.sample(cases, len(cases)):
            yield number, case


def medians(samples: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Median of each figure over its samples; None where no sample has it."""
    known = {
        key: [value for row in samples if (value := row[key]) is not None] for key in samples[0]
    }
    return {key: statistics.median(values) if values else None for key, values in known.items()}


def cpu_seconds() -> float:
    """CPU time of this process so far."""
    times = os.times()
    return times.user + times.system


def thread_milliseconds(paths: Mapping[str, Path], rounds: int) -> dict[str, float]:
    """Median CPU time of a call of each engine, in turns, on one thread: the one that calls.

    Other work on the machine prolongs the wall time of a call, but hardly its CPU time.
    """
    from edgeseg.engines import open_engine

    with contextlib.ExitStack() as stack:
        engines = {
            name: stack.enter_context(open_engine(path, threads=1)) for name, path in paths.items()
        }
        spent: dict[str, list[float]] = {name: [] for name in engines}
        for number, name in turns(list(engines), rounds):
            shape = (1, *engines[name].card.input.shape)
            picture = np.random.default_rng(0).normal(size=shape).astype(np.float32)
            began = time.thread_time()
            engines[name].infer(picture)
            if number >= rounds // 8:  # earlier calls also allocate
                spent[name].append(1e3 * (time.thread_time() - began))
    return {name: round(statistics.median(times), 2) for name, times in spent.items()}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def circumstances() -> dict[str, Any]:
    """When and on what was measured: ``created``, ``machine``, ``load_1min``."""
    return {
        "created": now(),
        "machine": machine.describe().to_dict(),
        "load_1min": os.getloadavg()[0],
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(document, indent=2) + "\n")


def words(*names: str) -> tuple[Column, ...]:
    """Columns of text."""
    return tuple(Column(name, number=False) for name in names)
