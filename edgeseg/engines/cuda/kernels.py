"""Find, load and launch the kernels of ``native/cuda/frame.cu``."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Iterator
from ctypes import Structure
from importlib import metadata
from pathlib import Path

import edgeseg
from edgeseg.engines.cuda.arguments import Argmax, Overlay, Preprocess
from edgeseg.engines.cuda.compiling import SOURCE, Compiler, compiled
from edgeseg.engines.cuda.device import Dim3
from edgeseg.engines.cuda.memory import DeviceMemory
from edgeseg.errors import DeviceError, RuntimeMissing

logger = logging.getLogger(__name__)

_BLOCK: Dim3 = (32, 8, 1)
"""A warp along a row, so that neighbours read neighbours; 256 threads, as frame.cu is bounded."""

_NAMES = ("preprocess", "argmax", "overlay")


class Kernels:
    """Compiled kernels; each method queues one on a stream, for ``batch`` pictures.

    Args:
        memory: Owner of the module, which unloads it when closed.
        image: Cubin, fatbin or PTX.

    Raises:
        DeviceError: The driver cannot load it.
    """

    def __init__(self, memory: DeviceMemory, image: bytes) -> None:
        self._cuda = memory.cuda
        module = memory.module(image)
        self._kernels = {name: self._cuda.kernel(module, name) for name in _NAMES}

    def preprocess(self, of: Preprocess, batch: int, stream: int) -> None:
        """Convert frames to float32 tensors."""
        self._launch("preprocess", of, (of.width, of.height, batch), stream)

    def argmax(self, of: Argmax, batch: int, stream: int) -> None:
        """Convert float32 logits to labels."""
        self._launch("argmax", of, (of.pixels, 1, batch), stream)

    def overlay(self, on: Overlay, batch: int, stream: int) -> None:
        """Draw the classes over the frames; each thread handles four pixels."""
        size = (-(-on.frames.width // 4), on.frames.height, batch)
        self._launch("overlay", on, size, stream)

    def _launch(self, name: str, argument: Structure, threads: Dim3, stream: int) -> None:
        block = (256, 1, 1) if threads[1] == 1 else _BLOCK
        sizes = zip(threads, block, strict=True)
        width, height, batch = (-(-wanted // each) for wanted, each in sizes)
        grid = (width, height, batch)
        self._cuda.launch_kernel(self._kernels[name], grid, block, bytes(argument), stream)


def load_kernels(memory: DeviceMemory, compiler: Compiler | None = None) -> Kernels:
    """Load the kernels shipped with the package, or else compile them for this GPU.

    Args:
        memory: Owner of the loaded module, see :class:`Kernels`.
        compiler: Compiler to use; by default that of the CUDA library in use.

    Raises:
        RuntimeMissing: There are none, and nothing compiles them here, or the driver does not
            take them.
    """
    file = shipped()
    if file is not None:
        try:
            return Kernels(memory, file.read_bytes())
        except (DeviceError, OSError) as error:  # A driver or a GPU that the file is too new for.
            logger.info("%s cannot be used here (%s)", file.name, error)
    image = compiled(memory.cuda, compiler)
    try:
        return Kernels(memory, image)
    except DeviceError as error:
        raise RuntimeMissing(f"the driver does not take the compiled kernels: {error}") from error


def shipped() -> Path | None:
    """The kernels that this installation brought, as :func:`packaged` finds them."""
    return packaged(_folders())


def packaged(folders: Iterable[str]) -> Path | None:
    """``kernels-HASH.fatbin`` of this very source, as CMake installs it.

    An editable install may lag behind its sources, which a warning says.
    """
    name = f"kernels-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.fatbin"
    stale = None
    for folder in map(Path, folders):
        if (folder / name).is_file():
            return folder / name
        stale = next(folder.glob("kernels-*.fatbin"), stale)
    if stale is not None:
        logger.warning("%s was built from other sources: run pip install again", stale)
    return None


def _folders() -> Iterator[str]:
    """Of the package; what an editable install compiled lies where an ordinary one would be."""
    yield from edgeseg.__path__
    with contextlib.suppress(metadata.PackageNotFoundError):
        yield str(metadata.distribution("edgeseg").locate_file("edgeseg"))
