"""Find, load and launch the kernels of ``native/cuda/frame.cu``, and prepare their arguments.

The processor makes the tables, once for each size: taps of the resize, values of the grey levels,
colours. Addresses are the device's.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Iterator
from ctypes import Structure, c_int32, c_int64, c_uint64
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgeseg
from edgeseg.artifacts.card import InputSpec
from edgeseg.engines.cuda.compiling import SOURCE, Compiler, compiled
from edgeseg.engines.cuda.device import Dim3
from edgeseg.engines.cuda.memory import DeviceMemory
from edgeseg.errors import DeviceError, RuntimeMissing
from edgeseg.ops.overlay import Look
from edgeseg.ops.preprocess import normalisation


class FrameBatch(Structure):
    """BGR frames of a batch, each of ``height`` × ``width`` pixels."""

    _fields_ = [
        ("data", c_uint64),
        ("pitch", c_int64),
        ("next", c_int64),
        ("height", c_int32),
        ("width", c_int32),
    ]


class Preprocess(Structure):
    """Arguments of ``preprocess``."""

    _fields_ = [
        ("frames", FrameBatch),
        *((name, c_uint64) for name in ("down", "across", "table", "out")),
        *((name, c_int32) for name in ("channels", "height", "width")),
        *((name, c_int32) for name in ("top", "left", "rows", "columns", "rgb", "area")),
    ]


class Argmax(Structure):
    """Arguments of ``argmax``."""

    _fields_ = [("logits", c_uint64), ("out", c_uint64), ("channels", c_int32), ("pixels", c_int32)]


class LabelMaps(Structure):
    """Label maps of a batch, from the first label of the region that the picture fills."""

    _fields_ = [
        ("data", c_uint64),
        ("pitch", c_int64),
        ("next", c_int64),
        ("rows", c_uint64),
        ("columns", c_uint64),
    ]


class Overlay(Structure):
    """Arguments of ``overlay``."""

    _fields_ = [
        ("frames", FrameBatch),
        ("labels", LabelMaps),
        ("colours", c_uint64),
        ("out", c_uint64),
        ("weight", c_int32),
        ("outline", c_int32),
    ]


def packed_frames(data: int, size: tuple[int, int]) -> FrameBatch:
    """BGR frames of ``size`` (H, W), one after the other from ``data`` on."""
    pitch = 3 * size[1]
    return FrameBatch(data, pitch, size[0] * pitch, *size)


def taps(source: int, target: int) -> NDArray[np.int32]:
    """Int32 (target, 2): first pixel, and weight of the next in 1/256, as INTER_LINEAR_EXACT.

    The same roundings as the C++ twin's: the ratio the other way round, then its inverse.
    """
    scale = 1.0 / (target / source)
    position = scale * (np.arange(target) + 0.5) - 0.5
    first = np.floor(position)
    weight = np.rint((position - first) * 256)
    weight[(first < 0) | (first >= source - 1)] = 0
    pairs = np.stack([np.clip(first, 0, source - 1), weight], axis=1)
    return pairs.astype(np.int32)


def value_table(spec: InputSpec) -> NDArray[np.float32]:
    """Float32 (C, 257): what each grey level becomes, and a letterbox's border, which is 0."""
    table = np.concatenate([normalisation(spec), np.zeros((spec.channels, 1))], axis=1)
    return np.ascontiguousarray(table, np.float32)


def colours(look: Look) -> NDArray[np.uint32]:
    """Uint32 (256,): ``blue | green << 8 | red << 16 | alpha << 24``, as :meth:`Look.table`."""
    return look.table().view("<u4")[:, 0]


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
