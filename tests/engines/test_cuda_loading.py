"""Kernels are found, compiled and kept, and what is damaged or of other sources is not taken."""

import ctypes
import gc
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines.frame_cases import needs_compiler
from engines.plans import adapter, spoilt
from standin.device import Device

from edgeseg.engines.cuda import DeviceMemory
from edgeseg.engines.cuda.compiling import SOURCE, Nvrtc, compiled
from edgeseg.engines.cuda.kernels import Argmax, load_kernels, packaged
from edgeseg.errors import DeviceError, RuntimeMissing

ELF = b"\x7fELF"

try:
    NVRTC: Nvrtc | None = Nvrtc()
except RuntimeMissing:
    NVRTC = None
needs_nvrtc = pytest.mark.skipif(
    NVRTC is None, reason="no NVRTC here (pip install nvidia-cuda-nvrtc)"
)


class Counting:
    """A compiler that says how often it was asked."""

    version = "counting-1.0"

    def __init__(self, made: bytes = b"cubin for sm_86") -> None:
        self.made, self.asked = made, 0

    def compile(self, source: bytes, target: str) -> bytes:
        assert source == SOURCE.read_bytes()
        assert target == "sm_86"
        self.asked += 1
        return self.made


@pytest.fixture
def cache(cache_folder: Path) -> Path:
    return cache_folder / "kernels"


@needs_compiler
@pytest.mark.parametrize("through", ["cuda-python", "pycuda"])
def test_what_the_package_has_is_loaded(shipped: Path, cache: Path, through: str) -> None:
    device, compiler = Device(), Counting()
    cuda = adapter(through, device)
    with DeviceMemory(cuda) as memory:
        load_kernels(memory, compiler)
        assert device.live() == ["module"]
    gc.collect()
    assert (compiler.asked, device.live(), cache.exists()) == (0, [], False)


@needs_compiler
@pytest.mark.parametrize("through", ["cuda-python", "pycuda"])
def test_a_kernel_runs_when_somebody_waits(shipped: Path, through: str) -> None:
    device = Device()
    cuda = adapter(through, device)
    with DeviceMemory(cuda) as memory:
        kernels, stream = load_kernels(memory), memory.stream()
        logits, labels = memory.device(4 * 3 * 300), memory.device(300)
        ctypes.memset(logits, 0, 4 * 900)
        ctypes.memset(logits + 4 * 600, 1, 4 * 300)  # small floats above 0
        kernels.argmax(Argmax(logits, labels, 3, 300), 1, stream)
        assert ctypes.string_at(labels, 300) != b"\2" * 300
        cuda.synchronize(stream)
        assert ctypes.string_at(labels, 300) == b"\2" * 300
        kernels.argmax(Argmax(7, labels, 3, 300), 1, stream)
        with pytest.raises(DeviceError, match="IllegalAddress"):
            cuda.synchronize(stream)


@needs_compiler
def test_other_gpus_compile_once(shipped: Path, cache: Path) -> None:
    """And a driver that does not take the package's file, which is the same to us."""
    (file,) = shipped.iterdir()
    file.write_bytes(b"fatbin: sm_87")
    compiler = Counting()
    for _ in range(2):
        with DeviceMemory(adapter("cuda-python", Device())) as memory:
            load_kernels(memory, compiler)
    assert compiler.asked == 1
    (kept,) = cache.iterdir()
    assert kept.name.endswith("-sm_86-counting-1.0.cubin")


@needs_compiler
def test_a_file_of_other_sources_is_left_aside(
    shipped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (file,) = shipped.iterdir()
    file.rename(file.with_name("kernels-0123456789abcdef.fatbin"))
    with caplog.at_level(logging.WARNING, "edgeseg"):
        assert packaged([str(shipped)]) is None
    assert "was built from other sources: run pip install again" in caplog.text


@spoilt
def test_what_nothing_vouches_for_is_compiled_again(
    cache: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], Any], said: str
) -> None:
    cuda, compiler = adapter("cuda-python", Device()), Counting()
    assert compiled(cuda, compiler) == compiled(cuda, compiler) == compiler.made
    (file,) = cache.iterdir()
    spoil(file)
    with caplog.at_level(logging.WARNING, "edgeseg"):
        assert compiled(cuda, compiler) == compiler.made
    assert compiler.asked == 2
    assert any(word in caplog.text for word in said.split("|"))


@needs_compiler
def test_a_driver_that_takes_nothing_leaves_no_kernels() -> None:
    device = Device()
    with (
        DeviceMemory(adapter("cuda-python", device)) as memory,
        pytest.raises(RuntimeMissing, match="driver does not take .*NoKernelImageForDevice"),
    ):
        load_kernels(memory, Counting(b"cubin for sm_75"))
    assert device.live() == []


@needs_nvrtc
@pytest.mark.parametrize("target", ["sm_75", "sm_87", "sm_90", "sm_120"])
def test_nvrtc_takes_the_same_source(target: str) -> None:
    assert NVRTC is not None
    assert NVRTC.compile(SOURCE.read_bytes(), target).startswith(ELF)


@needs_nvrtc
def test_nvrtc_makes_ptx_for_gpus_newer_than_itself() -> None:
    assert NVRTC is not None
    made = NVRTC.compile(SOURCE.read_bytes(), "sm_999")
    assert b".visible .entry overlay(" in made
    assert made.endswith(b"\0")


# What CMake does with nvcc.

CMAKE = shutil.which("cmake")


def configure(folder: Path, nvcc: str, *options: str) -> subprocess.CompletedProcess[str]:
    """CMake on the kernels' folder alone, with a shell script for nvcc."""
    tools, source = folder / "tools", folder / "source"
    for each in (tools, source):
        each.mkdir()
    (tools / "nvcc").write_text(f"#!/bin/sh\n{nvcc}\n")
    (tools / "nvcc").chmod(0o755)
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(one LANGUAGES NONE)\n"
        f"add_subdirectory({SOURCE.parent} cuda)\n"
    )
    command = [CMAKE or "cmake", "-S", source, "-B", folder / "build", *options]
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


WORKS = r"""case "$1" in --list-gpu-code) printf 'sm_75\nsm_90\nsm_999\n'; exit;; esac
for each; do [ "$last" = -o ] && out=$each; last=$each; done
printf "%s\n" "$@" > "$out"
"""


@pytest.mark.skipif(CMAKE is None, reason="no CMake here")
def test_cmake_compiles_for_what_nvcc_knows(tmp_path: Path) -> None:
    done = configure(tmp_path, WORKS)
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "build").glob("cuda/kernels-*.fatbin")
    assert packaged([str(made.parent)]) == made
    options = [each for each in made.read_text().split() if "=" in each]
    assert options == [
        "-std=c++17",
        "arch=compute_75,code=sm_75",
        "arch=compute_90,code=sm_90",
        "arch=compute_90,code=compute_90",
    ]


@pytest.mark.skipif(CMAKE is None, reason="no CMake here")
@pytest.mark.parametrize(
    "nvcc",
    [
        "echo broken >&2; exit 1",
        "echo sm_30",
        f'[ "$1" = -fatbin ] && {{ echo cannot >&2; exit 1; }}\n{WORKS}',
        "echo sm_90",
    ],
    ids=["starts not", "too old", "compiles not", "writes nothing"],
)
def test_a_broken_nvcc_ends_nothing_but_what_asks_for_it(tmp_path: Path, nvcc: str) -> None:
    for wanted in ("AUTO", "ON"):
        (tmp_path / wanted).mkdir()
        done = configure(tmp_path / wanted, nvcc, f"-DEDGESEG_CUDA={wanted}")
        assert (done.returncode == 0) == (wanted == "AUTO")
        assert not list((tmp_path / wanted).rglob("*.fatbin"))
        said = done.stdout if wanted == "AUTO" else done.stderr
        assert "nvcc" in said
