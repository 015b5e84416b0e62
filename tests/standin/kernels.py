"""The CUDA kernels run by the processor: the same source, compiled as plain C++."""

import ctypes
import functools
import hashlib
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SHIM = Path(__file__).with_name("kernels.cpp")
SOURCE = Path(__file__).parents[2] / "edgeseg" / "native" / "cuda" / "frame.cu"
COMPILER = shutil.which("g++")
# Memory of CUDA has no declared type: words may lie where bytes were written.
OPTIONS = ("-std=c++20", "-fno-strict-aliasing", "-ffp-contract=off", "-Wno-unknown-pragmas")


def compile_shim(out: Path, *options: str, source: Path = SOURCE) -> Path:
    """The shim around ``source``: a library, or a program with ``-DEDGESEG_DRIVER``."""
    command = [COMPILER or "g++", *OPTIONS, *options, f'-DEDGESEG_KERNELS="{source}"', str(SHIM)]
    done = subprocess.run(
        [*command, "-o", str(out)], capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return out


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels, compiled once a version of their source."""
    digest = hashlib.sha256(SOURCE.read_bytes() + SHIM.read_bytes()).hexdigest()[:16]
    with tempfile.TemporaryDirectory() as folder:
        made = compile_shim(Path(folder) / f"{digest}.so", "-O2", "-shared", "-fPIC")
        loaded = ctypes.CDLL(str(made))
    loaded.launch.restype = ctypes.c_ulong
    return loaded


def size_of(name: str) -> int:
    """Bytes of the structure that a kernel takes, 0 where there is no such kernel."""
    return int(library().launch(name.encode(), None, None, None))


# Places of addresses, in words of eight bytes.
_ADDRESSES = {"preprocess": (0, 4, 5, 6, 7), "argmax": (0, 1), "overlay": (0, 4, 7, 8, 9, 10)}


def addresses(name: str, arguments: bytes) -> list[int]:
    """Those in the structure of a kernel."""
    words = struct.unpack(f"={len(arguments) // 8}Q", arguments)
    return [words[place] for place in _ADDRESSES[name]]


def launch(name: str, grid: Sequence[int], block: Sequence[int], arguments: bytes) -> None:
    """Run a kernel; the addresses in ``arguments`` are of this process."""
    sizes = [(ctypes.c_uint * 3)(*each) for each in (grid, block)]
    taken = library().launch(name.encode(), *sizes, arguments)
    assert taken == len(arguments), f"{name} takes {taken} bytes, not {len(arguments)}"
