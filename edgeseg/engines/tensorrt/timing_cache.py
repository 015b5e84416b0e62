"""Cache of kernel times measured by TensorRT, one file per version and GPU.

A cache of another version or GPU, or a damaged one, costs nothing but time: it is ignored
with a warning. Builds may share the file: it is read and written whole, and what two builds
measured at the same time is joined under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.artifacts.files import write_atomic
from edgeseg.engines import kept
from edgeseg.engines.tensorrt.library import is_rtx, product
from edgeseg.errors import OutputError, UsageError
from edgeseg.options.building import PlanOptions

logger = logging.getLogger(__name__)

MAX_BYTES = 256 * 1024 * 1024
"""Real ones have a few MiB at most; a larger file is none."""


@dataclass(frozen=True)
class TimingCache:
    """The file beside a build's configuration."""

    trt: Any
    config: Any
    path: Path

    def read(self) -> None:
        """Load earlier measurements into the configuration, or an empty cache."""
        known = self._cache(self.path) if self.path.exists() else None
        if known is not None and self.config.set_timing_cache(known, False):
            return
        if self.path.exists():
            logger.warning(
                "the timing cache %s is not of %s on this GPU, or damaged: measuring again",
                self.path,
                product(self.trt),
            )
        self.config.set_timing_cache(self.config.create_timing_cache(b""), False)

    def write(self) -> None:
        """Merge the new measurements into the file; if that fails, the built engine is kept."""
        measured = self.config.get_timing_cache()
        try:
            with _locked(self.path):
                known = self._cache(self.path) if self.path.exists() else None
                if known is not None:
                    measured.combine(known, False)
                write_atomic(self.path, bytes(measured.serialize()))
        except (OSError, UsageError, OutputError) as error:
            logger.warning("the timing cache %s is not saved: %s", self.path, error)

    def _cache(self, path: Path) -> Any:
        if not path.is_file() or not 0 < path.stat().st_size <= MAX_BYTES:
            return None
        return self.config.create_timing_cache(path.read_bytes())


def timing_cache(trt: Any, config: Any, options: PlanOptions, gpu: str) -> TimingCache | None:
    """The cache that the options ask for; None where there is none.

    TensorRT-RTX measures nothing when it builds, so a file named for it
    is unused, with a warning.
    """
    if options.timing_cache == "none":
        return None
    if is_rtx(trt):
        if options.timing_cache != "auto":
            logger.warning(
                "%s measures no kernels when it builds: the timing cache %s is not used",
                product(trt),
                options.timing_cache,
            )
        return None
    if options.timing_cache == "auto":
        name = _file_name(f"tensorrt {trt.__version__} {gpu}")
        return TimingCache(trt, config, kept.folder() / f"{name}.timing")
    return TimingCache(trt, config, Path(options.timing_cache))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with the file: the lock is beside it, since the file itself is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # Which gives the lock back.


class RuntimeCache:
    """One engine's compiled kernels, on disk and in TensorRT-RTX.

    TensorRT-RTX compiles for the GPU at hand at the first inference, which takes seconds. The file
    is kept as :mod:`edgeseg.engines.kept` says. The library checks what it is handed against
    itself, GPU and driver; a file that it rejects costs time and never an inference.

    Args:
        cache: Cache object from ``IRuntimeConfig.create_runtime_cache``.
    """

    def __init__(self, cache: Any, path: Path) -> None:
        self.kernels, self.path = cache, path
        self._known = b""

    def read(self) -> None:
        """Load the kernels compiled by an earlier run."""
        try:
            data, problem = kept.read(self.path)
        except FileNotFoundError:
            return
        if not problem and self.kernels.deserialize(data):
            self._known = data
            return
        logger.warning(
            "the kernel cache %s is ignored (%s): compiling again",
            self.path,
            problem or "of another version, GPU or driver",
        )

    def write(self) -> None:
        """Save the compiled kernels if there are new ones."""
        serialized = self.kernels.serialize()
        data = bytes(serialized) if serialized is not None else b""
        if data in (b"", self._known):
            return
        kept.write(self.path, data)
        self._known = data


def cache_path(engine_sha256: str, version: str, gpu: str) -> Path:
    """The file of one engine on one GPU, in the user's cache folder."""
    name = _file_name(f"tensorrt-rtx {version} {gpu}")
    return kept.folder() / f"{name}-{engine_sha256[:16]}.kernels"


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
