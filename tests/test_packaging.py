"""What is shipped: built, unpacked and installed as a user would, then run."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import edgeseg

ROOT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    ".git",
    ".*cache",
    ".hypothesis",
    "__pycache__",
    "*.so",
    "runs",
    "dist",
    "build",
    ".venv",
    "venv",
)
MIB = 1024 * 1024
SOURCE_OF_KERNELS = "edgeseg/native/cuda/frame.cu"  # which NVRTC compiles at first use
NVCC = shutil.which("nvcc")
# The tools of this environment build offline; without CMake pip has to bring one.
OFFLINE = ("--no-isolation", "--skip-dependency-check") if shutil.which("cmake") else ()
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

pytestmark = pytest.mark.timeout(400)  # compiles, on a machine that may be busy


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        command,
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def build(source: Path, out: Path, *options: str, **environment: str):
    return run(
        *(sys.executable, "-m", "build", *OFFLINE, "--outdir", out, *options, source),
        cwd=source,
        **environment,
    )


def quick(script: Path) -> tuple[str, ...]:
    """Options of a build without optimisation and symbols, whose nvcc knows one GPU."""
    plain = ("-Ccmake.build-type=Debug", "-Ccmake.define.CMAKE_CXX_FLAGS_DEBUG=-O0")
    if NVCC is None:
        return plain
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --list-gpu-code ] && exec echo sm_90\nexec "{NVCC}" "$@"\n'
    )
    script.chmod(0o755)
    return (*plain, f"-Ccmake.define.EDGESEG_NVCC={script}")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, with some of the litter that a working copy collects."""
    copy = tmp_path_factory.mktemp("source") / "edgeseg"
    shutil.copytree(ROOT, copy, ignore=NOT_SOURCE)
    for litter in ("runs/a/model.onnx", "edgeseg/__pycache__/a.pyc", ".venv/a.py"):
        (copy / litter).parent.mkdir(parents=True, exist_ok=True)
        (copy / litter).write_text("litter")
    return copy


@pytest.fixture(scope="module")
def dist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the sdist and the wheel that was built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    done = build(source, out, *quick(tmp_path_factory.mktemp("nvcc") / "nvcc"))
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, its dependencies borrowed from this one."""
    home = tmp_path_factory.mktemp("venv")
    made = run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    assert made.returncode == 0, made.stderr
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    done = run(*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    (site,) = home.glob("lib/python*/site-packages")
    # Plain path lines: the hooks of an editable install in there are not run.
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return home


def python(home: Path, code: str) -> str:
    done = run(home / "bin" / "python", "-W", "error", "-c", code, cwd=home)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_the_package_and_nothing_else(wheel: Path, source: Path) -> None:
    names = set(names_in(wheel))
    files = {
        path.relative_to(source).as_posix()
        for path in (source / "edgeseg").rglob("*")
        if path.is_file() and not {"native", "__pycache__"} & set(path.parts)
    }
    assert {"edgeseg/py.typed", "edgeseg/data/nuclei/ATTRIBUTION.md"} <= files <= names
    strays = {
        name
        for name in names
        if not name.startswith(("edgeseg/", "edgeseg-"))
        or (name.startswith("edgeseg/native") and name != SOURCE_OF_KERNELS)
        or "__pycache__" in name
    }
    assert not strays
    assert SOURCE_OF_KERNELS in names
    ahead = [name for name in names if re.fullmatch(r"edgeseg/kernels-\w{16}\.fatbin", name)]
    assert len(ahead) == (NVCC is not None)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_bundled_sample_is_small_and_whole(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sample = [i for i in archive.infolist() if i.filename.startswith("edgeseg/data/nuclei/")]
    files = [path for path in (source / "edgeseg/data/nuclei").rglob("*") if path.is_file()]
    assert len(sample) == len(files) > 10
    assert sum(info.file_size for info in sample) <= 4 * MIB


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
def test_wheel_holds_the_extension(wheel: Path) -> None:
    assert [name for name in names_in(wheel) if name.startswith("edgeseg/_native.")]


def test_sdist_is_what_one_builds_and_tests_from(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        networks = sum(file.size for file in archive.getmembers() if "/networks/" in file.name)
    needed = ("CMakeLists.txt", "LICENSE", "README.md", "constraints.txt", "pyproject.toml")
    assert {*needed, "edgeseg/native/preprocess.cpp", "tests/test_packaging.py"} <= names
    assert not [n for n in names if n.startswith(("runs", ".venv")) or "__pycache__" in n]
    assert 0 < networks <= 2_500_000
    assert path.stat().st_size - networks <= 6 * MIB


def requirements(extras: Sequence[str], **environment: str) -> set[str]:
    """Names that the installed metadata asks for, on a machine of that kind."""
    linux = {"sys_platform": "linux", "platform_machine": "x86_64"}
    return {
        requirement.name
        for line in importlib.metadata.requires("edgeseg") or []
        for requirement in [Requirement(line)]
        if requirement.marker is None
        or any(
            requirement.marker.evaluate({**linux, **environment, "extra": extra})
            for extra in ("", *extras)
        )
    }


def test_core_needs_neither_torch_nor_onnx() -> None:
    assert requirements([]) == {
        *("numpy", "nvidia-ml-py", "onnxruntime", "opencv-python", "pydantic", "rich", "typer"),
        *("simplejpeg", "typing_extensions"),
    }


def test_jetpack_keeps_its_own_opencv_and_runtimes() -> None:
    hidden = {"onnxruntime", "opencv-python"}
    assert not hidden & requirements([], platform_machine="aarch64")
    assert hidden <= requirements(["cpu"], platform_machine="aarch64")
    assert "tensorrt-rtx" not in requirements(["demo"], platform_machine="aarch64")
    assert "tensorrt-rtx" in requirements(["demo"])


def test_installed_package_is_the_one_that_runs(installed: Path) -> None:
    code = "import edgeseg, importlib.metadata as m; print(edgeseg.__file__, m.version('edgeseg'))"
    file, version = python(installed, code).split()
    assert Path(file).is_relative_to(installed)
    assert version == edgeseg.__version__
    code = "from edgeseg.data.folders import bundled_sample; print(bundled_sample())"
    assert Path(python(installed, code)).is_relative_to(installed)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
def test_installed_extension_gives_the_bits_of_the_reference(installed: Path) -> None:
    code = (
        "import numpy as np\n"
        "from edgeseg.artifacts.card import InputSpec\n"
        "from edgeseg.ops.preprocess import *\n"
        "spec = InputSpec(height=64, width=96, resize='letterbox')\n"
        "image = np.random.default_rng(0).integers(0, 256, (480, 641, 3), dtype=np.uint8)\n"
        "one, two = np.zeros((2, *spec.shape), np.float32)\n"
        "fill_reference(image, one, placement_of((480, 641), spec), spec)\n"
        "fill_native(image, two, placement_of((480, 641), spec), spec)\n"
        "print(np.array_equal(one, two), one.any())\n"
    )
    assert python(installed, code) == "True True"


def test_command_answers(installed: Path) -> None:
    done = run(installed / "bin" / "edgeseg", "--help", cwd=installed, COLUMNS="100")
    assert done.returncode == 0, done.stderr
    for command in ("train", "build", "stream", "doctor", "demo"):
        assert command in done.stdout


def test_streaming_and_inference_start_where_torch_is_not(installed: Path) -> None:
    extras = ("torch", "kornia", "safetensors", "onnx", "onnxscript", "matplotlib", "tensorrt_rtx")
    block = f"import sys; sys.modules.update(dict.fromkeys({extras!r}))\n"
    python(installed, block + "import edgeseg.stream, edgeseg.engines.onnxruntime, edgeseg.cli")
    missing = "try:\n    import torch\nexcept ImportError:\n    print('blocked')"
    assert python(installed, block + missing) == "blocked"


def test_without_compiler_it_installs_without_the_extension(source: Path, tmp_path: Path) -> None:
    nowhere = {"CXX": "/nonexistent/c++"}
    wheel_only = ("--wheel", "-Ccmake.define.EDGESEG_CUDA=OFF")  # which NVCC takes its time for
    done = build(source, tmp_path, *wheel_only, **nowhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no C++ compiler found" in done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert not [name for name in names_in(wheel) if "_native" in name]
    insisting = "-Ccmake.define.EDGESEG_NATIVE=ON"
    refused = build(source, tmp_path, *wheel_only, insisting, **nowhere)
    assert refused.returncode != 0
    assert "no C++ compiler found" in refused.stdout + refused.stderr
