"""The row kernels as programs of their own: sanitised, for another CPU, and free of leaks."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeseg.ops.native import kernels

HERE = Path(__file__).parent
ROWS = HERE.parents[1] / "edgeseg" / "native" / "rows.cpp"
OPTIONS = ("-std=c++20", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-Wno-psabi")
# As in CMakeLists.txt: bytes of a vector, and what the compiler is told.
LEVELS: dict[str, tuple[int, Sequence[str]]] = {
    "portable": (16, ()),
    "neon": (16, ()),
    "avx2": (32, ("-mavx2",)),
    "avx512": (64, ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq")),
}
COMPILER = shutil.which("g++")
CROSS, QEMU = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
AVAILABLE = ["portable"] if kernels is None else kernels.levels()

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here (apt install g++)"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels of an x86-64 CPU"),
]


def compile_level(level: str, out: Path, *options: str, compiler: str | None = None) -> Path:
    """``rows.cpp`` of a level, with the driver unless only the object is asked for."""
    vector, flags = LEVELS[level]
    names = (f"-DEDGESEG_LEVEL={level}", f'-DEDGESEG_LEVEL_NAME="{level}"')
    sources = [str(ROWS)] if "-c" in options else [str(ROWS), str(HERE / "driver.cpp")]
    command = [compiler or COMPILER or "", *OPTIONS, *flags, *names, f"-DEDGESEG_VECTOR={vector}"]
    command += [*options, *sources, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    return out


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}
    environment.pop("LD_PRELOAD", None)
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env=environment,
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the portable level prints."""
    program = compile_level("portable", tmp_path_factory.mktemp("portable") / "driver")
    printed = run(program).stdout
    assert len(printed.splitlines()) == 15 * 9
    return printed


# Built with less optimisation, which takes a third of the time and inlines less.
SANITISE = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")


@pytest.mark.parametrize("level", [name for name in LEVELS if name in AVAILABLE])
def test_sanitisers_find_nothing(level: str, tmp_path: Path, expected: str) -> None:
    done = run(compile_level(level, tmp_path / "driver", *SANITISE))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected


def test_sanitisers_find_a_read_past_the_slack(tmp_path: Path) -> None:
    header = (ROWS.parent / "rows.hpp").read_text()
    assert "kRowSlack = 8" in header
    (tmp_path / "rows.hpp").write_text(header.replace("kRowSlack = 8", "kRowSlack = 0"))
    driver = (HERE / "driver.cpp").read_text().replace("../../edgeseg/native/rows.hpp", "rows.hpp")
    (tmp_path / "driver.cpp").write_text(driver)
    (tmp_path / "rows.cpp").write_text(ROWS.read_text())
    command = [COMPILER, *OPTIONS, *SANITISE, "-DEDGESEG_LEVEL=portable", "-DEDGESEG_VECTOR=16"]
    sources = [tmp_path / "rows.cpp", tmp_path / "driver.cpp", "-o", tmp_path / "driver"]
    built = run(*command, '-DEDGESEG_LEVEL_NAME="portable"', *sources)
    assert built.returncode == 0, built.stderr
    assert "heap-buffer-overflow" in run(tmp_path / "driver").stderr


@pytest.mark.skipif(
    CROSS is None or QEMU is None,
    reason="no aarch64 compiler or emulator here (apt install g++-aarch64-linux-gnu qemu-user)",
)
def test_aarch64_computes_the_same(tmp_path: Path, expected: str) -> None:
    program = compile_level("neon", tmp_path / "driver", "-static", compiler=CROSS)
    done = run(QEMU or "", program)
    assert (done.returncode, done.stdout) == (0, expected)


def shared_symbols(path: Path) -> list[str]:
    """Symbols that the linker merges with those of other files."""
    listed = run("nm", "--demangle", path).stdout.splitlines()
    return [line for line in listed if line[17:18] in ("W", "V", "u")]


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm here (apt install binutils)")
@pytest.mark.parametrize("level", ["avx2", "avx512"])
def test_no_function_of_a_level_can_replace_one_of_the_rest(level: str, tmp_path: Path) -> None:
    """Such as an inline one of the standard library: other CPUs would run it and die."""
    assert shared_symbols(compile_level(level, tmp_path / "rows.o", "-O1", "-c")) == []
    planted = tmp_path / "planted.cpp"
    planted.write_text("inline int f(int x) { return x; } int (*kept)(int) = f;")
    assert run(COMPILER or "", "-c", planted, "-o", tmp_path / "planted.o").returncode == 0
    assert any(" f(int)" in symbol for symbol in shared_symbols(tmp_path / "planted.o"))
