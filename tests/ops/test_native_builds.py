"""The kernels built otherwise: sanitised, for another CPU, and each level apart.

The row kernels are programs of their own here; the whole extension, sanitised, runs its tests.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    assert len(printed.splitlines()) == 15 * 20
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


def frame_checksums(level: str, folder: Path, *emulator: str) -> str:
    """What the kernels themselves, on the row kernels of ``level``, compute."""
    names = ("argmax", "average", "components", "overlay", "preprocess", "upsample")
    sources = [ROWS, *(ROWS.parent / f"{name}.cpp" for name in names), HERE / "frame.cpp"]
    vector, flags = LEVELS[level]
    defined = (f"-DEDGESEG_LEVEL={level}", f'-DEDGESEG_LEVEL_NAME="{level}"')
    compiler = (CROSS if emulator else COMPILER) or ""
    built = run(
        *(compiler, *OPTIONS, "-O1", "-static", "-pthread", *flags, *defined),
        *(f"-DEDGESEG_VECTOR={vector}", *sources, "-o", folder / level),
    )
    assert built.returncode == 0, built.stderr
    done = run(*emulator, folder / level)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    CROSS is None or QEMU is None,
    reason="no aarch64 compiler or emulator here (apt install g++-aarch64-linux-gnu qemu-user)",
)
def test_aarch64_computes_whole_frames_the_same(tmp_path: Path) -> None:
    expected = frame_checksums("portable", tmp_path)
    assert len(expected.splitlines()) == 3 * (3 * 14 + 7)
    assert frame_checksums("neon", tmp_path, QEMU or "") == expected


EXTENSION = (*SANITISE, "-std=c++20", "-fPIC", "-fvisibility=hidden", "-Wno-psabi")
PLUGIN = """
import edgeseg
edgeseg.__path__.insert(0, {folder!r})
# Editable installs find the extension through a hook of their own, ahead of the path.
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "scikit" not in repr(f).lower()]
import edgeseg._native
assert edgeseg._native.__file__.startswith({folder!r}), edgeseg._native.__file__
"""


def compile_sources(sources: Iterable[Path], folder: Path) -> None:
    """Objects of the extension's sources, two at a time; rows.cpp once a level."""
    nanobind = pytest.importorskip("nanobind", reason="nanobind is not installed here")
    outside = Path(nanobind.source_dir())
    headers = (nanobind.include_dir(), outside.parent / "ext" / "robin_map" / "include")
    python = sysconfig.get_path("include")
    includes = [f"-I{path}" for path in (python, *headers, ROWS.parent)]
    jobs: list[tuple[str | Path, ...]] = []
    for source in sources:
        if source != ROWS:
            target = folder / f"{source.stem}.o"
            jobs.append((*EXTENSION, "-ffp-contract=off", "-c", source, "-o", target))
    if ROWS in sources:
        for level in ("avx512", "avx2", "portable"):
            vector, flags = LEVELS[level]
            names = (f"-DEDGESEG_LEVEL={level}", f'-DEDGESEG_LEVEL_NAME="{level}"')
            options = (*OPTIONS, *EXTENSION, *flags, *names, f"-DEDGESEG_VECTOR={vector}")
            jobs.append((*options, "-c", ROWS, "-o", folder / f"rows_{level}.o"))
        binding = (*EXTENSION[-3:], "-O0", "-fno-strict-aliasing", "-DNDEBUG")
        jobs.append((*binding, "-c", outside / "nb_combined.cpp", "-o", folder / "nanobind.o"))
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda job: run(COMPILER or "", *includes, *job), jobs):
            assert done.returncode == 0, done.stderr


def link(folder: Path) -> Path:
    """The folder of an extension made of the objects in ``folder``, and its plugin for pytest."""
    package = folder / "package"
    package.mkdir(exist_ok=True)
    objects = sorted(folder.glob("*.o"))
    built = run(
        *(COMPILER or "", "-shared", "-pthread", "-fsanitize=address,undefined", *objects),
        *("-o", package / "_native.so"),
    )
    assert built.returncode == 0, built.stderr
    (folder / "sanitised.py").write_text(PLUGIN.format(folder=str(package)))
    return folder


def run_tests(folder: Path, *what: str) -> subprocess.CompletedProcess[str]:
    """Pytest on files of this folder with the extension that was linked in ``folder``."""
    libraries = [
        run(COMPILER or "", f"-print-file-name={name}.so").stdout.strip()
        for name in ("libasan", "libstdc++")
    ]
    path = os.pathsep.join([str(folder), str(HERE.parents[1])])
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # of the interpreter itself
        "PYTHONPATH": path,
    }
    environment.pop("EDGESEG_NATIVE", None)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n0",
            "-q",
            "-s",
            "-p",
            "sanitised",
            "-p",
            "no:cacheprovider",
        ]
        + [str(HERE / name) for name in what],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=environment,
        cwd=HERE.parents[1],
    )


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    compile_sources(sorted(ROWS.parent.glob("*.cpp")), folder)
    return folder


@pytest.mark.timeout(400)
def test_sanitisers_find_nothing_in_the_whole_extension(objects: Path) -> None:
    kernels_of = ("argmax", "components", "overlay", "preprocess")
    done = run_tests(link(objects), *(f"test_{name}.py" for name in kernels_of))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


@pytest.mark.timeout(400)
def test_sanitisers_find_a_write_past_the_end_in_the_extension(
    objects: Path, tmp_path: Path
) -> None:
    source = (ROWS.parent / "overlay.cpp").read_text()
    slack = "lines_(2 * part_)"
    assert slack in source
    shutil.copytree(objects, tmp_path, dirs_exist_ok=True)
    (tmp_path / "overlay.cpp").write_text(source.replace(slack, "lines_(part_ + 1)"))
    compile_sources([tmp_path / "overlay.cpp"], tmp_path)
    done = run_tests(link(tmp_path), "test_overlay.py")
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr
    assert "overlay.cpp" in done.stderr


def shared_symbols(path: Path) -> list[str]:
    """Symbols that the linker merges with those of other files."""
    listed = run("nm", "--demangle", path).stdout.splitlines()
    return [line for line in listed if line[17:18] in ("W", "V", "u")]


# What a level has beyond the one below: registers, and for AVX the three operands of its encoding.
BEYOND = {
    "portable": re.compile(r"%[yz]mm|%k[0-7]|\tv(?!err|erw)[a-z0-9]+ "),
    "avx2": re.compile(r"%zmm|%k[0-7]|%[xy]mm(?:1[6-9]|2[0-9]|3[01])"),
}


def beyond(level: str, path: Path) -> list[str]:
    """Instructions of an object that a CPU of that level may lack."""
    listed = run("objdump", "-d", "--no-show-raw-insn", path)
    assert listed.returncode == 0, listed.stderr
    assert "ret" in listed.stdout
    return [line for line in listed.stdout.splitlines() if BEYOND[level].search(line)]


@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump (apt install binutils)")
def test_no_level_has_instructions_of_the_next(tmp_path: Path) -> None:
    """CPUs with AVX-512 are rare where tests run: at least nobody else meets its code."""
    objects = {
        level: compile_level(level, tmp_path / f"{level}.o", "-c")
        for level in ("portable", "avx2", "avx512")
    }
    assert beyond("portable", objects["portable"]) == []
    assert beyond("portable", objects["avx2"])
    assert beyond("avx2", objects["avx2"]) == []
    assert beyond("avx2", objects["avx512"])


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm here (apt install binutils)")
@pytest.mark.parametrize("level", ["avx2", "avx512"])
def test_no_function_of_a_level_can_replace_one_of_the_rest(level: str, tmp_path: Path) -> None:
    """Such as an inline one of the standard library: other CPUs would run it and die."""
    assert shared_symbols(compile_level(level, tmp_path / "rows.o", "-O1", "-c")) == []
    planted = tmp_path / "planted.cpp"
    planted.write_text("inline int f(int x) { return x; } int (*kept)(int) = f;")
    assert run(COMPILER or "", "-c", planted, "-o", tmp_path / "planted.o").returncode == 0
    assert any(" f(int)" in symbol for symbol in shared_symbols(tmp_path / "planted.o"))
