"""The Dockerfiles: a linter, the project's rules, and their install steps as far as they go."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dockerfiles import ROOT, command, faults, packages, requirements, stages

DEPLOY = ROOT / "docs" / "deploy"
FILES = sorted(DEPLOY.glob("*.Dockerfile"))
CPU = DEPLOY / "cpu.Dockerfile"
LINTER = shutil.which("dockerfile-utils")

every = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    if LINTER is None:
        pytest.skip("needs dockerfile-utils (npm install -g dockerfile-utils)")
    return subprocess.run(
        [LINTER, "lint", str(path)], capture_output=True, text=True, check=False, timeout=60
    )


@every
def test_the_linter_finds_nothing(path: Path) -> None:
    checked = lint(path)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_linter_finds_what_is_planted(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text(CPU.read_text().replace("EXPOSE 8080", "EXPOZE 8080"))
    assert "EXPOZE" in lint(bad).stdout


@every
def test_the_rules_find_nothing(path: Path) -> None:
    assert faults(path) == []


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("FROM debian:bookworm-slim\n", "FROM debian\n", "no tag"),
        ("FROM debian:bookworm-slim\n", "FROM debian:latest\n", "no tag"),
        ("--no-install-recommends libgl1", "libgl1", "no --no-install-recommends"),
        ("    && rm -rf /var/lib/apt/lists/*\n", "", "no rm -rf"),
        ("--no-cache-dir ", "", "no --no-cache-dir"),
        ("-slim\nRUN", "-slim\nCOPY LICENSE /\nRUN", "a COPY before apt-get"),
        ("COPY edgeseg edgeseg", "COPY edgeseg edgeseg\nCOPY LICENSE ./", "copied last"),
        ("COPY edgeseg edgeseg", "COPY src src", "COPY src: not in the project"),
        ("COPY edgeseg edgeseg", "COPY tests tests", "left out by .dockerignore"),
        ("metrics,openvino", "metrics,opencl", "no extra {'opencl'}"),
        ("USER 10001\n", "", "no USER"),
        ("USER 10001", "USER 0", "no USER"),
        ("libglib2.0-0 python3", "libglib2.0-0 g++", "a compiler in the last stage"),
        ("EXPOSE 8080", "ENV EDGESEG_CAMERA_PASSWORD=x", "stays in the image"),
        ("COPY docs/deploy/health.py", "ADD docs/deploy/health.py", "ADD"),
        ("ENTRYPOINT", "LABEL", "0 ENTRYPOINT"),
    ],
)  # fmt: skip
def test_the_rules_find_what_is_planted(before: str, after: str, says: str, tmp_path: Path) -> None:
    text = CPU.read_text()
    assert before in text
    bad = tmp_path / "Dockerfile"
    bad.write_text(text.replace(before, after))
    assert any(says in fault for fault in faults(bad)), faults(bad)


@every
def test_the_command_of_the_image_is_one(path: Path, edgeseg: Any, tmp_path: Path) -> None:
    last = {step.name: step for step in stages(path)[-1] if step.name in ("ENTRYPOINT", "CMD")}
    assert command(last["ENTRYPOINT"]) == ["edgeseg"]
    words = command(last["CMD"])
    words[words.index("/etc/edgeseg/stream.toml")] = str(DEPLOY / "front.toml")
    outcome = edgeseg(*words, "--write-config", tmp_path / "all.toml")
    assert outcome.code == 0, outcome.err


def test_the_packages_of_the_cpu_image_can_be_installed() -> None:
    release = Path("/etc/os-release")
    lists = Path("/var/lib/apt/lists")
    if not release.exists() or "VERSION_CODENAME=bookworm" not in release.read_text():
        pytest.skip("this is no Debian bookworm, of which the image is made")
    if not list(lists.glob("*_Packages*")):
        pytest.skip("needs the lists of packages (apt-get update)")
    wanted = [name for stage in stages(CPU) for step in stage for name in packages(step)]
    assert {"g++", "python3-venv", "libgl1"} <= set(wanted)
    for names, code in ((wanted, 0), ([*wanted, "libgl1-of-nobody"], 100)):
        tried = subprocess.run(
            ["apt-get", "install", "--simulate", "--no-install-recommends", *names],
            capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        assert tried.returncode == code, tried.stderr


@every
def test_what_pip_is_asked_for_agrees_with_the_constraints(path: Path) -> None:
    """A pin of the file and one of constraints.txt that exclude each other end an install."""
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )  # fmt: skip
    for step in (step for stage in stages(path) for step in stage):
        if "pip install" not in step.value:
            continue
        asked = requirements(step)
        assert asked
        for each in asked:
            if "-c constraints.txt" in step.value and each.name in pinned:
                assert each.specifier.contains(pinned[each.name]), each


def test_the_install_of_the_cpu_image_runs(tmp_path: Path) -> None:
    """The very words of its ``pip install``, in a fresh environment, up to the download."""
    (step,) = [step for step in stages(CPU)[0] if "pip install" in step.value]
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=100)
    # The pip of this environment: the one that a Python brings downloads what it need not.
    pip = shlex.join([sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python")])
    words = step.value.replace("/opt/edgeseg/bin/pip", pip)
    assert words != step.value
    tried = subprocess.run(
        words.replace(" install", " install --dry-run --quiet --report report.json"),
        shell=True, capture_output=True, text=True, check=False, timeout=110,
        cwd=_context(tmp_path / "src"), env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    if tried.returncode and re.search(r"connection|resolution|timed out", tried.stderr, re.I):
        pytest.skip("needs a package index")
    assert tried.returncode == 0, tried.stderr
    report = (tmp_path / "src" / "report.json").read_text()
    for name in ("edgeseg", "openvino", "onnxruntime", "av", "uvicorn", "prometheus_client"):
        assert re.search(rf'"name": "{name.replace("_", "[_-]")}"', report), name


def _context(folder: Path) -> Path:
    """What the build stage copies, and nothing else."""
    folder.mkdir()
    for step in stages(CPU)[0]:
        if step.name == "COPY":
            for name in step.value.split()[:-1]:
                if (ROOT / name).is_dir():
                    skipped = shutil.ignore_patterns("__pycache__", "*.so")
                    shutil.copytree(ROOT / name, folder / name, ignore=skipped)
                else:
                    shutil.copy(ROOT / name, folder)
    return folder
