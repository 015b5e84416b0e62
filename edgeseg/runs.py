"""Run folders ``runs/NAME/``: create them, and find the newest run or artefact."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from edgeseg.artifacts.files import newest
from edgeseg.artifacts.partials import alone
from edgeseg.errors import UsageError

logger = logging.getLogger(__name__)

RUNS = Path("runs")
"""Folder for the runs of ``edgeseg train``, relative to the current folder."""
BUNDLED = Path(__file__).parent / "networks"
"""Folder of the trained networks that come with edgeseg, one run folder each.

On a command line ``bundled:NAME`` names them. What only reads takes them where they are.
"""
BUNDLED_DEFAULT = "nuclei"
BUNDLED_PREFIX = "bundled:"

CHECKPOINT = "model.safetensors"
NETWORK = "model.onnx"
RANGES = "model.ranges.json"
OF_A_RUN = ("model.*", "last.*", "state.*", "events.out.tfevents.*")
"""Files of a training and its artefacts; a new training must not start among them."""
RUNNABLE = (
    NETWORK,
    "model.fp16.onnx",
    "model.int8.onnx",
    "model.fp32.openvino.onnx",
    "model.fp16.openvino.onnx",
    "model.int8.openvino.onnx",
)
ENGINES = (*RUNNABLE, "model.fp32.engine", "model.fp16.engine", "model.int8.engine")


@contextlib.contextmanager
def prepare_run(
    run: Path | None, arch: str, *, overwrite: bool = False, resume: bool = False
) -> Iterator[Path]:
    """Create the folder for a training run, and lock out other trainings until the block ends.

    A folder that it made and that is still empty then is removed.

    Args:
        run: Requested folder; None chooses ``runs/ARCH-YYYYMMDD-HHMMSS``.
        arch: Architecture name for the default folder.
        overwrite: Whether to replace an earlier run instead of refusing it.
        resume: Whether to keep an earlier run and resume it; requires ``run``.

    Raises:
        UsageError: A run is there already, another process trains there, or the folder cannot
            be written.
    """
    if resume and (run is None or overwrite):
        raise UsageError(
            "--resume needs --run, and cannot be combined with --overwrite",
            hint="name the run to resume with --run, and omit --overwrite",
        )
    if run is None:
        run = _unused(RUNS / f"{arch}-{datetime.now():%Y%m%d-%H%M%S}")
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the run folder {run}: {error.strerror}", hint="choose another --run"
        ) from error
    if not os.access(run, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write in the run folder {run}", hint="choose another --run")
    try:
        with alone(run / CHECKPOINT, doing="trains"):
            if not resume:
                _clear(run, overwrite=overwrite)
            yield run
    finally:
        with contextlib.suppress(OSError):  # the first that is not empty
            for folder in made:
                folder.rmdir()


def _unused(run: Path) -> Path:
    """Return the folder, with a number appended if it already exists."""
    names = itertools.chain([run], (run.with_name(f"{run.name}-{n}") for n in itertools.count(2)))
    return next(name for name in names if not name.exists())


def _clear(run: Path, *, overwrite: bool) -> None:
    """Remove the files of an earlier run, or refuse them unless ``overwrite``."""
    earlier = sorted(path for pattern in OF_A_RUN for path in run.glob(pattern))
    if earlier and not overwrite:
        raise UsageError(
            f"{run} already holds a run ({earlier[0].name})",
            hint="choose another --run, or replace it with --overwrite",
        )
    for path in earlier:
        # Otherwise an old engine beside the new checkpoint would be taken for its own.
        path.unlink()


def newest_run() -> Path:
    """Return the run under ``runs/`` that was trained or exported last, and log it.

    Raises:
        UsageError: There is none.
    """
    found = newest(RUNS, (f"*/{CHECKPOINT}", f"*/{NETWORK}"))
    if found is None:
        raise UsageError(
            f"no path given, and no run under {RUNS.absolute()}",
            hint="edgeseg train --data DIR, or name the file",
        )
    logger.info("taking %s, the newest run", found.parent)
    return found.parent


def located(path: Path) -> Path:
    """Return the folder of ``bundled:NAME``, or any other path as it is.

    Raises:
        UsageError: edgeseg brings no network of that name.
    """
    if not str(path).startswith(BUNDLED_PREFIX):
        return path
    name = str(path)[len(BUNDLED_PREFIX) :]
    there = sorted(folder.name for folder in BUNDLED.iterdir() if (folder / NETWORK).exists())
    if name not in there:
        raise UsageError(
            f"{path}: no such network comes with edgeseg",
            hint=f"one of {', '.join(BUNDLED_PREFIX + each for each in there)}",
        )
    return BUNDLED / name


def _run_or_bundled() -> Path:
    """Return the newest run, or where there is none the bundled network, and log which."""
    try:
        return newest_run()
    except UsageError:
        name = BUNDLED_PREFIX + BUNDLED_DEFAULT
        logger.warning(
            "no run under %s: taking %s, which comes with edgeseg (edgeseg inspect %s)",
            *(RUNS.absolute(), name, name),
        )
        return BUNDLED / BUNDLED_DEFAULT


def artifact_in(run: Path, names: tuple[str, ...], hint: str) -> Path:
    """Return the newest of the files ``names`` in the folder ``run``, and log it.

    Of a bundled network, whose files are as old as their installation, it is the first.

    Raises:
        UsageError: None of them is there; ``hint`` is the command that makes one.
    """
    if run.parent == BUNDLED:
        found = next((run / name for name in names if (run / name).exists()), None)
    else:
        found = newest(run, names)
    if found is None:
        raise UsageError(f"{run} holds none of {', '.join(names)}", hint=hint)
    logger.info("taking %s", found)
    return found


def resolve(path: Path | None, names: tuple[str, ...], hint: str, *, bundled: bool = False) -> Path:
    """Return a file as given, or the newest of ``names`` in a run folder (default: newest run).

    Args:
        path: File, run folder or ``bundled:NAME``; None for the newest run.
        names: Names of the files to look for in a folder.
        hint: Command that makes one of them, for the error.
        bundled: Where there is neither path nor run, take the network that comes with edgeseg.

    Raises:
        UsageError: There is no run, or none of the files ``names`` is in it.
    """
    path = None if path is None else located(path)
    if path is not None and not path.is_dir():
        return path
    return artifact_in(path or (_run_or_bundled() if bundled else newest_run()), names, hint)


def engines_of(paths: Sequence[Path]) -> list[Path]:
    """Return the given engines, with a run folder (default: the newest) replaced by its engines.

    Where there is no run, these are the engines of the bundled network.

    Raises:
        UsageError: There is no engine in a folder.
    """
    found: list[Path] = []
    for path in map(located, paths or [_run_or_bundled()]):
        if not path.is_dir():
            found.append(path)
            continue
        there = [path / name for name in ENGINES if (path / name).exists()]
        if not there:
            raise UsageError(f"{path} holds no engine", hint=f"edgeseg build {path} --fp16")
        found += there
    return found


def engine_and_paths(paths: Sequence[str]) -> tuple[Path, Sequence[str]]:
    """Split ``[ENGINE] PATHS…``: the first path is the engine if it is a network or a run.

    Where there is no run, the engine is the bundled network.

    Raises:
        UsageError: There is no engine in a folder, or no other path.
    """
    first = located(Path(paths[0]))
    is_engine = first.suffix in (".onnx", ".engine", ".safetensors") or any(
        (first / name).exists() for name in (*RUNNABLE, CHECKPOINT)
    )
    engine = resolve(
        first if is_engine else None,
        (*RUNNABLE, CHECKPOINT),
        "edgeseg train --data DIR",
        bundled=True,
    )
    named = paths[1:] if is_engine else paths
    if not named:
        raise UsageError("no pictures given", hint="edgeseg infer PICTURES…")
    return engine, named


def network_place(path: Path) -> Path:
    """Return the path of a run's FP32 network, even before export; a file is returned as is.

    That of a bundled network is the path of its copy, which
    :func:`edgeseg.export.on_demand.network_of` makes.
    """
    if str(path).startswith(BUNDLED_PREFIX):
        return RUNS / located(path).name / NETWORK
    return path / NETWORK if path.is_dir() else path
