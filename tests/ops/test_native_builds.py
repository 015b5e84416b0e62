"""The kernels built otherwise: sanitised, for another CPU, and each level apart.

The row kernels, and the kernels on whole frames, are programs of their own here.
"""

import os
import platform
import re
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


def compile_level(
    level: str, out: Path, *options: str, sources: Sequence[Path] = (ROWS, HERE / "driver.cpp"),
    compiler: str | None = None,
) -> Path:  # fmt: skip
    """``rows.cpp`` of a level, with the driver unless other sources or objects are given."""
    vector, flags = LEVELS[level]
    names = (f"-DEDGESEG_LEVEL={level}", f'-DEDGESEG_LEVEL_NAME="{level}"')
    command = [compiler or COMPILER or "", *OPTIONS, *flags, *names, f"-DEDGESEG_VECTOR={vector}"]
    command += [*options, *map(str, sources), "-o", str(out)]
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
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The object of each level, as it is shipped."""
    folder = tmp_path_factory.mktemp("levels")
    return {
        level: compile_level(level, folder / f"{level}.o", "-c", sources=[ROWS])
        for level in ("portable", "avx2", "avx512")
    }


@pytest.fixture(scope="module")
def expected(objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the portable level prints."""
    out = tmp_path_factory.mktemp("portable") / "driver"
    program = compile_level("portable", out, sources=[objects["portable"], HERE / "driver.cpp"])
    printed = run(program).stdout
    assert len(printed.splitlines()) == 15 * 25
    return printed


# Built without optimisation, which takes a third of the time and inlines nothing.
SANITISE = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")


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


OVERLAY = ROWS.parent / "overlay.cpp"
WITH_OVERLAY = ("argmax", "average", "components", "preprocess", "rows", "smooth")


def compile_frames(
    level: str, folder: Path, *options: str, overlay: Path = OVERLAY, compiler: str | None
) -> Path:
    """The kernels on the row kernels of ``level``, and a program that runs them on frames.

    All but the overlay are one translation unit, whose headers are read once; its object is
    taken from ``folder`` if it is there.
    """
    vector, flags = LEVELS[level]
    defined = (f"-DEDGESEG_LEVEL={level}", f'-DEDGESEG_LEVEL_NAME="{level}"')
    rest = folder / "rest.cpp"
    if not rest.exists():
        included = [ROWS.parent / f"{name}.cpp" for name in WITH_OVERLAY] + [HERE / "frame.cpp"]
        rest.write_text("".join(f'#include "{path}"\n' for path in included))
    for source in (rest, overlay):
        if (made := folder / f"{source.stem}.o").exists():
            continue
        built = run(
            *(compiler or "", *OPTIONS, "-O1", *options, *flags, *defined, f"-I{ROWS.parent}"),
            *(f"-DEDGESEG_VECTOR={vector}", "-c", source, "-o", made),
        )
        assert built.returncode == 0, built.stderr
    linked = run(
        *(compiler or "", "-pthread", *options, *sorted(folder.glob("*.o"))),
        *("-o", folder / "frames"),
    )
    assert linked.returncode == 0, linked.stderr
    return folder / "frames"


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that runs the portable kernels on frames, sanitised, beside its objects."""
    return compile_frames(
        "portable", tmp_path_factory.mktemp("frames"), *SANITISE, compiler=COMPILER
    )


def test_sanitisers_find_nothing_in_whole_frames(frames: Path) -> None:
    done = run(frames)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3 * (3 * 14 + 8)


def test_sanitisers_find_a_write_past_the_end_in_a_frame(frames: Path, tmp_path: Path) -> None:
    source = OVERLAY.read_text()
    slack = "lines_(2 * part_)"
    assert slack in source
    shutil.copytree(frames.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "overlay.o").unlink()
    (tmp_path / "overlay.cpp").write_text(source.replace(slack, "lines_(part_ + 1)"))
    planted = compile_frames(
        *("portable", tmp_path, *SANITISE), overlay=tmp_path / "overlay.cpp", compiler=COMPILER
    )
    done = run(planted)
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr
    assert "overlay.cpp" in done.stderr


@pytest.mark.skipif(
    CROSS is None or QEMU is None,
    reason="no aarch64 compiler or emulator here (apt install g++-aarch64-linux-gnu qemu-user)",
)
def test_aarch64_computes_whole_frames_the_same(frames: Path, tmp_path: Path) -> None:
    done = run(QEMU or "", compile_frames("neon", tmp_path, "-static", compiler=CROSS))
    assert (done.returncode, done.stdout) == (0, run(frames).stdout)


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
def test_no_level_has_instructions_of_the_next(objects: dict[str, Path]) -> None:
    """CPUs with AVX-512 are rare where tests run: at least nobody else meets its code."""
    assert beyond("portable", objects["portable"]) == []
    assert beyond("portable", objects["avx2"])
    assert beyond("avx2", objects["avx2"]) == []
    assert beyond("avx2", objects["avx512"])


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm here (apt install binutils)")
def test_no_function_of_a_level_can_replace_one_of_the_rest(
    objects: dict[str, Path], tmp_path: Path
) -> None:
    """Such as an inline one of the standard library: other CPUs would run it and die."""
    assert {level: shared_symbols(objects[level]) for level in ("avx2", "avx512")} == {
        "avx2": [],
        "avx512": [],
    }
    planted = tmp_path / "planted.cpp"
    planted.write_text("inline int f(int x) { return x; } int (*kept)(int) = f;")
    assert run(COMPILER or "", "-c", planted, "-o", tmp_path / "planted.o").returncode == 0
    assert any(" f(int)" in symbol for symbol in shared_symbols(tmp_path / "planted.o"))
