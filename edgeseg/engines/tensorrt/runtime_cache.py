"""Cache of the kernels that TensorRT-RTX compiles at run time.

It compiles for the GPU at hand at the first inference, which takes seconds. Its runtime cache
holds the result: one file for each engine, version and GPU, kept as :mod:`edgeseg.engines.kept`
says. The library checks what it is handed against itself, GPU and driver. A file that is left
aside, or cannot be written, costs time and never an inference.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from edgeseg.engines import kept
from edgeseg.errors import UsageError

logger = logging.getLogger(__name__)


class RuntimeCache:
    """One engine's compiled kernels, on disk and in TensorRT-RTX.

    Args:
        cache: Cache object from ``IRuntimeConfig.create_runtime_cache``.
        path: The file.
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
        try:
            kept.write(self.path, data)
        except UsageError as error:
            logger.warning("compiled kernels are not cached: %s", error)
        self._known = data


def cache_path(engine_sha256: str, version: str, gpu: str) -> Path:
    """The file of one engine on one GPU, in the user's cache folder."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"tensorrt-rtx {version} {gpu}").strip("-")
    return kept.folder() / f"{name}-{engine_sha256[:16]}.kernels"
