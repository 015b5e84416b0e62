"""Kernels that TensorRT-RTX compiled when an engine ran, kept for the next start.

It compiles for the GPU at hand at the first inference, which takes seconds. Its runtime cache
holds the result: one file for each engine, version and GPU in the user's cache folder, behind
the SHA-256 of what follows. Such a file is native code too: what others could have written, or
what is damaged, is not handed to the library, which checks the rest against itself, GPU and
driver. A file that is left aside, or cannot be written, costs time and never an inference.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from pathlib import Path
from typing import Any

from edgeseg.artifacts import write_atomic
from edgeseg.errors import UsageError

logger = logging.getLogger(__name__)

MAX_BYTES = 512 * 1024 * 1024
"""A larger file is none of ours."""


class RuntimeCache:
    """One engine's compiled kernels, on disk and in TensorRT-RTX.

    Args:
        cache: What ``IRuntimeConfig.create_runtime_cache`` gave.
        path: The file.
    """

    def __init__(self, cache: Any, path: Path) -> None:
        self.kernels, self.path = cache, path
        self._known = b""

    def read(self) -> None:
        """Take what an earlier run compiled."""
        try:
            data, problem = _vouched(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            data, problem = b"", str(error.strerror)
        if not problem and self.kernels.deserialize(data):
            self._known = data
            return
        logger.warning(
            "the kernel cache %s is left aside (%s): compiling afresh",
            self.path,
            problem or "of another version, GPU or driver",
        )

    def write(self) -> None:
        """Keep what was compiled, where that is more than was read."""
        serialized = self.kernels.serialize()
        data = bytes(serialized) if serialized is not None else b""
        if data in (b"", self._known):
            return
        try:
            write_atomic(self.path, hashlib.sha256(data).digest() + data)
        except UsageError as error:
            logger.warning("compiled kernels are not kept: %s", error)
        self._known = data


def _vouched(path: Path) -> tuple[bytes, str]:
    """What follows the hash, and why it is not to be used."""
    with path.open("rb") as stream:
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BYTES:
            return b"", "no file of ours"
        if facts.st_uid != os.getuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return b"", "others can write it"
        data = stream.read()
    digest, rest = data[:32], data[32:]
    return rest, "" if rest and hashlib.sha256(rest).digest() == digest else "damaged"


def cache_path(engine_sha256: str, version: str, gpu: str) -> Path:
    """The file of one engine on one GPU, by the XDG base directory specification."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(root) if root.startswith("/") else Path.home() / ".cache") / "edgeseg"
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"tensorrt-rtx {version} {gpu}").strip("-")
    return folder / f"{name}-{engine_sha256[:16]}.kernels"
