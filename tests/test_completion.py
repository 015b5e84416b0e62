"""Completion in real shells: installed, asked, quick, and offering what the commands take."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from edgeseg.options.building import TARGETS
from edgeseg.options.training import Architecture

ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "cv2", "torch", "onnx", "onnxruntime", "rich", "edgeseg.building")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the command that an installation makes, and nothing else."""
    script = tmp_path / "bin/edgeseg"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom edgeseg.cli import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    return tmp_path


def run(home: Path, *command: str, **variables: str) -> str:
    """What a command prints, in that home."""
    path = f"{home / 'bin'}:/usr/bin:/bin"
    env = {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    if "TMPDIR" in os.environ:
        env["TMPDIR"] = os.environ["TMPDIR"]
    done = subprocess.run(
        command, env=env | variables, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


BASH = """
source <(edgeseg --show-completion)
ask() {
  COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
  _edgeseg_completion edgeseg
  echo "${COMPREPLY[*]}"
}
complete -p edgeseg
ask edgeseg stre
ask edgeseg data ''
ask edgeseg build --runt
ask edgeseg build --runtime tensor
ask edgeseg train --data x --arch fcn
ask edgeseg stream --source clip
ask edgeseg stream --mode t
ask edgeseg build --timing-cache n
"""


def test_bash_completes_commands_options_and_values(home: Path) -> None:
    lines = run(home, "bash", "--norc", "-c", BASH).splitlines()
    assert lines[0] == "complete -o default -F _edgeseg_completion edgeseg"
    assert lines[1:] == [
        "stream",
        "check convert",
        "--runtime",
        "tensorrt tensorrt-rtx",
        "fcn32s fcn16s fcn8s",
        "",  # -o default: bash's own, which are files
        "throughput",
        "none",
    ]


def test_bash_has_it_after_installation(home: Path) -> None:
    run(home, "bash", "--norc", "-c", "edgeseg --install-completion; true")
    again = "source ~/.bashrc; complete -p edgeseg"
    assert "_edgeseg_completion edgeseg" in run(home, "bash", "--norc", "-c", again)


def test_fish_completes_and_has_it_after_installation(home: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("no fish")
    run(home, fish, "-c", "edgeseg --install-completion")
    asked = run(
        home, fish, "-c", 'complete -C "edgeseg stre"; complete -C "edgeseg build --runtime o"'
    )
    assert [line.split("\t")[0] for line in asked.splitlines()] == [
        "stream",
        "onnxruntime",
        "openvino",
    ]


ZSH = """
autoload -Uz compinit && compinit -u
source <(edgeseg --show-completion)
print -- $_comps[edgeseg]
words=(edgeseg build --runtime tens); CURRENT=4
_arguments() { print -- "$@" }
_edgeseg_completion
"""


def test_zsh_completes_and_has_it_after_installation(home: Path) -> None:
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("no zsh")
    lines = run(home, zsh, "-f", "-c", ZSH).splitlines()
    assert lines[0] == "_edgeseg_completion"
    assert '"tensorrt"' in lines[1]
    assert '"tensorrt-rtx"' in " ".join(lines)
    assert "onnxruntime" not in " ".join(lines)
    run(home, zsh, "-f", "-c", "edgeseg --install-completion; true")
    again = "ZSH_DISABLE_COMPFIX=true; source ~/.zshrc; print -- $_comps[edgeseg]"
    assert run(home, zsh, "-f", "-c", again).strip() == "_edgeseg"


def test_completing_loads_nothing_heavy(home: Path) -> None:
    spy = home / "sitecustomize.py"
    spy.write_text(
        "import atexit, sys\n"
        f"atexit.register(lambda: print(sorted(set({HEAVY!r}) & set(sys.modules))))\n"
    )
    told = run(
        home,
        "edgeseg",
        PYTHONPATH=f"{home}:{ROOT}",
        _EDGESEG_COMPLETE="complete_bash",
        COMP_WORDS="edgeseg build --runtime open",
        COMP_CWORD="3",
    )
    assert told.splitlines() == ["openvino", "[]"]


def test_networks_offered_are_those_there_are() -> None:
    models = pytest.importorskip("edgeseg.models", exc_type=ImportError)
    assert set(get_args(Architecture)) == set(models.ARCHITECTURES)


def test_gpus_offered_are_those_of_tensorrt_rtx() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    known = {f"sm_{name[2:]}" for name in vars(trt.ComputeCapability) if name.startswith("SM")}
    assert set(TARGETS) <= known
